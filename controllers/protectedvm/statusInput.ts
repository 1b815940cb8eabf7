/** What a ProtectedVM's status is decided from, gathered from the vault's observation, the resources and Azure. */
import type { ProtectedVM, ProtectedVMStatus } from '../../crds/index.ts';
import type { Logger } from '../../platform/ports.ts';
import type { ApplierStatus } from '../../vault/documents/applierStatus.ts';
import type { CatalogDocument } from '../../vault/documents/catalog.ts';
import type { MachineStatus } from '../../vault/documents/machineStatus.ts';
import type { Objection } from '../decisions.ts';
import { durationSeconds, type Environment } from '../environment.ts';
import type { OpenVault } from '../openvaults/openVaults.ts';
import type { PointsSummary } from '../openvaults/points.ts';
import { keyOf } from '../runtime/objectKey.ts';
import { significantOffset } from '../vaultTime.ts';
import type { Scope } from './acceptance.ts';
import type { PointsObserver } from './pointsObserver.ts';
import { resolveTarget } from './target.ts';
import type { TargetObserver } from './targetObserver.ts';

export interface StatusInput {
  /** Now, by the vault's clock. */
  vaultNowMs: number;
  /** Why the resource can't be acted on; undefined when it can. */
  acceptance: Objection | undefined;
  deletion: Objection | undefined;
  paused: boolean;
  rpoThresholdSeconds: number;
  rpoThresholdText: string;
  /** Undefined while the machine has no entry in the vault, or the vault can't be read. */
  catalog: CatalogDocument | undefined;
  vaultReadable: boolean;
  enrolled: boolean;
  offeredDisks: ProtectedVMStatus['offeredDisks'];
  processServer: {
    name: string;
    heartbeatMs: number | undefined;
    clockOffsetMs: number;
    /** When its status was written, by the vault's clock: nothing that it tells of happened later. */
    reportedMs?: number | undefined;
  };
  machine: MachineStatus | undefined;
  applied: ApplierStatus['machines'][number] | undefined;
  points: PointsSummary | undefined;
  /** Undefined while Azure has not been asked. */
  target: { objection: Objection | undefined } | undefined;
  /** What was shown before: progress of an initial replication stays after its end. */
  before: ProtectedVMStatus | undefined;
}

/** Reads caches and what was observed; asks the vault for points and Azure for the target, each rarely. */
export async function gatherStatusInput(
  deps: {
    environment: Pick<Environment, 'clock'>;
    points: PointsObserver;
    targets: TargetObserver;
    log: Logger;
  },
  resource: ProtectedVM,
  seen: {
    scope: Scope;
    catalog: CatalogDocument | undefined;
    deletion: Objection | undefined;
  },
): Promise<StatusInput> {
  const { scope, catalog } = seen;
  const { vault, policy } = scope;
  const replica = catalog?.processServer ?? resource.spec.processServerRef.name;
  const offered =
    (catalog === undefined ? undefined : vault?.observation.offeredDisks(catalog.machineId)) ??
    resource.status?.offeredDisks;
  const rpoThresholdText = policy?.spec.rpoThreshold ?? '15m';
  return {
    vaultNowMs: vault?.observation.vaultNow() ?? deps.environment.clock.now(),
    acceptance: scope.objection,
    deletion: seen.deletion,
    paused: resource.spec.paused,
    rpoThresholdText,
    rpoThresholdSeconds: durationSeconds(rpoThresholdText),
    catalog,
    vaultReadable: vault?.readable ?? false,
    enrolled: offered !== undefined,
    offeredDisks: offered,
    processServer: processServerSeen(vault, replica),
    machine:
      catalog === undefined ? undefined : vault?.observation.machine(replica, catalog.machineId),
    applied: catalog === undefined ? undefined : vault?.observation.applied(catalog.machineId),
    points: await deps.points.summary(keyOf(resource), {
      vault,
      machineId: catalog?.machineId,
      appConsistent: policy?.spec.appConsistentInterval !== undefined,
      log: deps.log,
    }),
    target: await targetSeen(deps.targets, resource, { scope, catalog }),
    before: resource.status,
  };
}

/** Its heartbeat by the vault's clock: never later than when its status was written, whatever its own clock says. */
function processServerSeen(
  vault: OpenVault | undefined,
  name: string,
): StatusInput['processServer'] {
  const reported = vault?.observation.processServer(name);
  const reportedMs = vault?.observation.reportedMs(name);
  return {
    name,
    heartbeatMs:
      reported === undefined
        ? undefined
        : Math.min(
            reported.heartbeatMs - significantOffset(reported.clockOffsetMs),
            reportedMs ?? Number.POSITIVE_INFINITY,
          ),
    clockOffsetMs: reported?.clockOffsetMs ?? 0,
    reportedMs,
  };
}

async function targetSeen(
  targets: TargetObserver,
  resource: ProtectedVM,
  seen: { scope: Scope; catalog: CatalogDocument | undefined },
): Promise<StatusInput['target']> {
  const { vault, vaultResource } = seen.scope;
  if (vault === undefined || vaultResource === undefined) return undefined;
  return await targets.verdict(vault.stores.compute, keyOf(resource), {
    targets: [
      resolveTarget(resource, vaultResource, 'Production'),
      resolveTarget(resource, vaultResource, 'Test'),
    ],
    disks:
      seen.catalog?.disks ??
      resource.spec.disks.map((disk, index) => ({ ...disk, index, sizeBytes: 0 })),
  });
}
