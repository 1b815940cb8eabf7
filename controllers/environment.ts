/** What every reconciler is given: caches to read, the API to write, the vaults that are open, and the words they share. */
import {
  type Failover,
  FORCE_DELETE_ANNOTATION,
  type ProcessServer,
  type ProtectedVM,
  type RecoveryVault,
  type ReplicationPolicy,
} from '../crds/index.ts';
import type { KubeClient, KubeObject } from '../platform/kubernetes.ts';
import type { Clock, Random } from '../platform/ports.ts';
import type { Figures } from './openvaults/figures.ts';
import type { OpenVaults } from './openvaults/openVaults.ts';
import type { EventRecorder } from './runtime/eventRecorder.ts';
import type { ObjectCache } from './runtime/informer.ts';
import type { ObjectKey } from './runtime/objectKey.ts';
import type { StatusWriter } from './runtime/statusWriter.ts';

export interface Caches {
  vaults: ObjectCache<RecoveryVault>;
  policies: ObjectCache<ReplicationPolicy>;
  machines: ObjectCache<ProtectedVM>;
  processServers: ObjectCache<ProcessServer>;
  failovers: ObjectCache<Failover>;
}

export interface Environment {
  kube: KubeClient;
  clock: Clock;
  random: Random;
  caches: Caches;
  openVaults: OpenVaults;
  figures: Figures;
  status: Pick<StatusWriter, 'write' | 'forget'>;
  events: Pick<EventRecorder, 'record'>;
  /** Has an object of another kind looked at. Does nothing while its controller does not run. */
  enqueue(kind: keyof Caches, key: ObjectKey): void;
  /** How often what can't be watched (the vault, Azure) is looked at. */
  intervals: Intervals;
}

export interface Intervals {
  /** The vault's control documents. */
  pollMs: number;
  /** A machine's recovery points, besides whenever its applier reports a new one. */
  pointsMs: number;
  /** Whether a machine's target still exists in Azure. */
  targetMs: number;
}

export const defaultIntervals: Intervals = { pollMs: 5_000, pointsMs: 60_000, targetMs: 300_000 };

export function namespaceOf(object: KubeObject): string {
  return object.metadata.namespace ?? '';
}

/** The key of the vault that a resource names. */
export function vaultKeyOf(
  resource: KubeObject & { spec: { vaultRef: { name: string; namespace?: string } } },
): ObjectKey {
  const { vaultRef } = resource.spec;
  return `${vaultRef.namespace ?? namespaceOf(resource)}/${vaultRef.name}`;
}

export function isDeleted(object: KubeObject): boolean {
  return object.metadata.deletionTimestamp !== undefined;
}

/** Somebody wants it gone, whatever is left behind. */
export function isForced(object: KubeObject): boolean {
  return object.metadata.annotations?.[FORCE_DELETE_ANNOTATION] !== undefined;
}

const UNIT_SECONDS: Record<string, number> = { s: 1, m: 60, h: 3600 };

/** `15m` as seconds. The CRDs allow no other form; anything else is a bug and throws. */
export function durationSeconds(text: string): number {
  const match = /^([1-9][0-9]{0,5})(s|m|h)$/.exec(text);
  if (match === null) throw new RangeError(`${JSON.stringify(text)} is no duration`);
  return Number(match[1]) * (UNIT_SECONDS[match[2] ?? ''] ?? 0);
}
