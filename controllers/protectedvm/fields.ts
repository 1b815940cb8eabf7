/** A ProtectedVM's status apart from its conditions: what the data plane reports, as the API shows it. Pure. */
import type { ProtectedVMStatus } from '../../crds/index.ts';
import type { CatalogDocument } from '../../vault/documents/catalog.ts';
import type { EndedResync, MachineStatus } from '../../vault/documents/machineStatus.ts';
import type { PointsSummary } from '../openvaults/points.ts';
import { hasBarrier } from './conditions.ts';
import { type Progress, progressOf } from './policies.ts';
import type { StatusInput } from './statusInput.ts';

export type MachineFields = Omit<ProtectedVMStatus, 'conditions' | 'observedGeneration'>;

/** `durableMs`: time of the newest durable barrier, in the vault's clock; undefined before the first. */
export function fieldsOf(input: StatusInput, durableMs: number | undefined): MachineFields {
  const { catalog, machine, applied } = input;
  const progress = progressOf(machine);
  const initial = initialReplicationField(input, progress, durableMs);
  const status: MachineFields = {
    ...lastKnown(input),
    ...(catalog === undefined ? {} : catalogFields(catalog, machine)),
    ...(input.offeredDisks === undefined ? {} : { offeredDisks: input.offeredDisks.map(clipped) }),
    ...(machine === undefined ? {} : machineFields(machine)),
    ...(initial === undefined ? {} : { initialReplication: initial }),
    ...(progress === undefined || !hasBarrier(input)
      ? {}
      : { resync: { reason: progress.reason, ...progressField(progress) } }),
    ...(durableMs === undefined ? {} : { lastBarrierTime: iso(durableMs) }),
    ...(input.points === undefined ? {} : { recoveryPoints: pointsField(input.points) }),
  };
  if (machine !== undefined || applied !== undefined) {
    status.positions = {
      ...(machine === undefined
        ? {}
        : {
            captured: String(machine.positions.capturedLsn),
            journaled: String(machine.positions.journaledLsn),
            uploaded: String(machine.positions.uploadedLsn),
          }),
      ...(applied === undefined ? {} : { applied: String(applied.appliedLsn) }),
      ...(recoveryPointLsn(input) === undefined
        ? {}
        : { recoveryPoint: String(recoveryPointLsn(input)) }),
    };
    status.bytesBehind = {
      ...(machine === undefined
        ? {}
        : { agent: machine.backlog.agentBytes, cache: machine.backlog.cacheBytes }),
      ...(applied === undefined ? {} : { applier: applied.behindBytes }),
    };
  }
  return status;
}

/**
 * Facts of the machine that stay true while nobody can look: after a restart, or while the vault does not answer, a status that
 * forgot them would take the machine from its process server.
 */
function lastKnown({ before, catalog, points }: StatusInput): MachineFields {
  const { machineId, activeSide, activeFailover, disks, recoveryPoints } = before ?? {};
  return {
    ...(catalog !== undefined || machineId === undefined ? {} : { machineId }),
    ...(catalog !== undefined || activeSide === undefined ? {} : { activeSide }),
    ...(catalog !== undefined || activeFailover === undefined ? {} : { activeFailover }),
    ...(catalog !== undefined || disks === undefined ? {} : { disks }),
    ...(points !== undefined || recoveryPoints === undefined ? {} : { recoveryPoints }),
  };
}

export function recoveryPointLsn(
  input: Pick<StatusInput, 'applied' | 'points'>,
): bigint | undefined {
  return input.points?.recent[0]?.lsn ?? input.applied?.recoveryPointLsn;
}

function catalogFields(
  catalog: CatalogDocument,
  machine: MachineStatus | undefined,
): MachineFields {
  return {
    machineId: catalog.machineId,
    activeSide: catalog.activeSide,
    ...(catalog.activeFailover === undefined ? {} : { activeFailover: catalog.activeFailover }),
    disks: catalog.disks.map((disk) => {
      const error = machine?.disks.find((reported) => reported.index === disk.index)?.error;
      return {
        name: disk.name,
        index: disk.index,
        sizeBytes: disk.sizeBytes,
        ...(error === undefined ? {} : { error: error.slice(0, 4096) }),
      };
    }),
  };
}

function machineFields(machine: MachineStatus): MachineFields {
  const { agent, barriers } = machine;
  return {
    agent: {
      connected: agent.connected,
      ...(agent.lastSeenMs === undefined ? {} : { lastSeen: iso(agent.lastSeenMs) }),
      ...(agent.version === undefined ? {} : { version: agent.version.slice(0, 128) }),
      ...(agent.hostname === undefined ? {} : { hostname: agent.hostname.slice(0, 256) }),
      ...(agent.kernel === undefined ? {} : { kernel: agent.kernel.slice(0, 256) }),
    },
    barriers: {
      count: barriers.count,
      voided: barriers.voided,
      lastFreezeMs: Math.round(barriers.lastFreezeMs),
      maxFreezeMs: Math.round(barriers.maxFreezeMs),
      ...(barriers.lastVoid === undefined ? {} : { lastVoid: barriers.lastVoid.slice(0, 4096) }),
    },
    ...(machine.resyncToken === undefined ? {} : { resyncToken: machine.resyncToken.slice(0, 63) }),
  };
}

type OfferedDisk = NonNullable<ProtectedVMStatus['offeredDisks']>[number];

function clipped({ device, description, ...disk }: OfferedDisk): OfferedDisk {
  return {
    device: device.slice(0, 1024),
    ...disk,
    ...(description === undefined ? {} : { description: description.slice(0, 4096) }),
  };
}

function initialReplicationField(
  input: StatusInput,
  progress: Progress | undefined,
  durableMs: number | undefined,
): ProtectedVMStatus['initialReplication'] {
  const before = input.before?.initialReplication;
  const ended = input.machine?.lastResync;
  if (before?.finishedAt !== undefined) return before;
  // Told by the agent itself: it may have been too quick for anybody to see it under way.
  if (ended?.reason === 'Initial') return endedField(ended);
  if (hasBarrier(input))
    return {
      ...before,
      ...(before?.bytesTotal === undefined ? {} : { bytesDone: before.bytesTotal }),
      percent: 100,
      etaSeconds: 0,
      finishedAt: iso(durableMs ?? input.vaultNowMs),
    };
  return progress === undefined ? before : progressField(progress);
}

function endedField(ended: EndedResync): NonNullable<ProtectedVMStatus['initialReplication']> {
  const seconds = (ended.finishedMs - ended.startedMs) / 1000;
  return {
    bytesTotal: ended.bytesTotal,
    bytesDone: ended.bytesTotal,
    bytesSent: ended.bytesSent,
    percent: 100,
    ...(seconds > 0 ? { bytesPerSecond: Math.round(ended.bytesTotal / seconds) } : {}),
    etaSeconds: 0,
    startedAt: iso(ended.startedMs),
    finishedAt: iso(ended.finishedMs),
  };
}

function progressField(progress: Progress): NonNullable<ProtectedVMStatus['initialReplication']> {
  return {
    bytesTotal: progress.bytesTotal,
    bytesDone: progress.bytesDone,
    bytesSent: progress.bytesSent,
    percent: progress.percent,
    bytesPerSecond: Math.round(progress.bytesPerSecond),
    ...(progress.etaSeconds === undefined ? {} : { etaSeconds: progress.etaSeconds }),
    startedAt: iso(progress.startedMs),
  };
}

function pointsField(points: PointsSummary): NonNullable<ProtectedVMStatus['recoveryPoints']> {
  const point = (one: NonNullable<PointsSummary['oldest']>) => ({
    name: one.name,
    lsn: String(one.lsn),
    time: iso(one.timeMs),
  });
  return {
    count: points.count,
    ...(points.damaged === undefined ? {} : { damaged: points.damaged.count }),
    ...(points.oldest === undefined ? {} : { oldestTime: iso(points.oldest.timeMs) }),
    ...(points.newestCrash === undefined ? {} : { newestCrash: point(points.newestCrash) }),
    ...(points.newestApp === undefined ? {} : { newestApp: point(points.newestApp) }),
    recent: points.recent.map((one) => ({
      ...point(one),
      consistency: one.consistency,
      ...(one.damaged ? { damaged: true } : {}),
    })),
  };
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}
