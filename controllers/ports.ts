/**
 * What reconcilers ask of the runtime around them: caches to read, keys to queue, a status to write, events to tell. Small, so that
 * a test stands in for it with a map.
 */
import type { KubeObject, KubeResource, ObjectName } from '../platform/kubernetes.ts';
import type { Decided } from './decisions.ts';

/** Namespace and name of an object: what queues hold. */
export interface ObjectKey {
  namespace: string;
  name: string;
}

/** The last known state of all objects of one kind. Never changed by its readers. */
export interface ObjectCache<T extends KubeObject> {
  get(key: ObjectKey): T | undefined;
  list(): readonly T[];
}

export interface ReconcileResult {
  /** Come back after so long even if nothing changes. */
  requeueAfterMs?: number;
}

export interface Reconciler {
  reconcile(key: ObjectKey, signal: AbortSignal): Promise<ReconcileResult>;
}

export interface StatusWriter {
  /**
   * Writes what changed: at once when a condition did, else at most once a minute. `status` lacks conditions and
   * observedGeneration, which are made from `conditions` and `object`.
   */
  write<T extends KubeResource>(
    object: T,
    shown: { status: Record<string, unknown>; conditions: readonly Decided[] },
  ): Promise<void>;
}

export interface EventRecorder {
  /** Past tense, names things; the same event again within minutes counts up the first. Never throws. */
  record(
    object: KubeObject,
    event: { type: 'Normal' | 'Warning'; reason: string; message: string },
  ): void;
}

/** Adds to another controller's queue; the kinds are those of crds/. */
export type Enqueue = (
  kind: 'RecoveryVault' | 'ReplicationPolicy' | 'ProtectedVM' | 'ProcessServer' | 'Failover',
  key: ObjectKey,
) => void;

export function keyOf(object: KubeObject): ObjectKey {
  return { namespace: object.metadata.namespace ?? '', name: object.metadata.name };
}

export function keyText(key: ObjectName): string {
  return `${key.namespace ?? ''}/${key.name}`;
}
