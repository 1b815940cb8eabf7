import type { MachineFigures } from '../openvaults/figures.ts';
import { newestSound } from '../openvaults/points.ts';
import { recoveryPointLsn } from './fields.ts';
import { progressOf } from './policies.ts';
import type { Shown } from './status.ts';
import type { StatusInput } from './statusInput.ts';

/** A machine's figures for the metrics: times and positions; ages are computed when somebody asks. */
export function machineFigures(
  input: StatusInput,
  shown: Shown,
  clock: { vaultNow(): number },
): MachineFigures {
  const { machine, applied } = input;
  const progress = progressOf(machine);
  const point = recoveryPointLsn(input);
  return {
    durableMs: shown.durableMs,
    newestPointMs: input.points && newestSound(input.points)?.timeMs,
    rpoThresholdSeconds: input.rpoThresholdSeconds,
    vaultNow: clock.vaultNow,
    lsn: {
      ...(machine === undefined
        ? {}
        : {
            captured: machine.positions.capturedLsn,
            journaled: machine.positions.journaledLsn,
            uploaded: machine.positions.uploadedLsn,
          }),
      ...(applied === undefined ? {} : { applied: applied.appliedLsn }),
      ...(point === undefined ? {} : { recoveryPoint: point }),
    },
    bytesBehind: {
      ...(machine === undefined
        ? {}
        : { agent: machine.backlog.agentBytes, cache: machine.backlog.cacheBytes }),
      ...(applied === undefined ? {} : { applier: applied.behindBytes }),
    },
    initialReplicationRatio:
      progress === undefined || progress.bytesTotal === 0
        ? undefined
        : Math.min(1, progress.bytesDone / progress.bytesTotal),
  };
}
