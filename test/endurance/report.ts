/** What an endurance run found: figures, and what of them is a failure. */
import { percentile } from './journal.ts';
import { MOVED_WITHIN_S, type Takeover } from './takeover.ts';

export interface Struck {
  kind: string;
  part: string;
  /** Since the faults began, s. */
  atSeconds: number;
  seconds: number;
}

/** A resync that is none of the machines' first replication. */
export interface ResyncSeen {
  machine: string;
  reason: string;
  detail: string;
  /** A fault that keeps an agent from following its disks made it lose track. */
  explained: boolean;
}

export interface TakeoverCost extends Takeover {
  /** Bytes of blocks under the new epoch up to its first barrier. */
  resentBytes: number;
  /** What the machine wrote between the last barrier that the vault had and that first one. */
  writtenBytes: number;
}

export interface DiskVerdict {
  machine: string;
  disk: string;
  matches: boolean;
}

export interface Report {
  ok: boolean;
  /** Why not; also what could not be tidied up. */
  problems: string[];
  seed: number;
  minutes: number;
  faults: Record<string, number>;
  struck: Struck[];
  /** Processes that ended by themselves and were started again. */
  ownEnds: Record<string, number>;
  fullResyncs: number;
  resyncs: ResyncSeen[];
  bytes: { written: number; received: number; inVault: number; sentAgain: number };
  freeze: { longestMs: number; longestWriteHeldUpMs: number };
  rpoSeconds: { p50: number; p99: number; max: number } | null;
  takeovers: TakeoverCost[];
  points: { made: number; rootsCompared: number };
  disks: DiskVerdict[];
}

export function emptyReport(run: { seed: number; minutes: number }): Report {
  return {
    ...{ ok: false, problems: [], ...run },
    ...{ faults: {}, struck: [], ownEnds: {}, fullResyncs: 0, resyncs: [] },
    bytes: { written: 0, received: 0, inVault: 0, sentAgain: 0 },
    freeze: { longestMs: 0, longestWriteHeldUpMs: 0 },
    ...{ rpoSeconds: null, takeovers: [], points: { made: 0, rootsCompared: 0 }, disks: [] },
  };
}

/** What of the figures is a failure; the comparisons told theirs already. */
export function problemsOf(report: Report): string[] {
  const problems: string[] = [];
  for (const { machine, reason, detail, explained } of report.resyncs)
    if (!explained)
      problems.push(`${machine}: a resync that no fault explains: ${reason}, ${detail}`);
  for (const { machine, disk, matches } of report.disks)
    if (!matches) problems.push(`${machine}: ${disk} is not the source's`);
  if (report.disks.length === 0) problems.push('no disk was compared');
  for (const one of report.takeovers) {
    const { machine, kind } = one;
    if (one.movedSeconds > MOVED_WITHIN_S)
      problems.push(`${machine} moved only after ${one.movedSeconds} s (${kind})`);
    if (one.epochAfter <= one.epochBefore)
      problems.push(`${machine} moved under epoch ${one.epochAfter}, not above ${one.epochBefore}`);
    if (one.resentBytes > one.writtenBytes)
      problems.push(
        `${machine}: ${one.resentBytes} bytes were sent after it moved, and it had written ${one.writtenBytes} since the last barrier`,
      );
  }
  return problems;
}

export function rpoOf(samples: readonly number[]): Report['rpoSeconds'] {
  const [p50, p99, max] = [0.5, 0.99, 1].map((share) => percentile(samples, share));
  return p50 === undefined || p99 === undefined || max === undefined ? null : { p50, p99, max };
}

/** For people. */
export function linesOf(report: Report): string[] {
  const { bytes, freeze, rpoSeconds: rpo, points, disks, takeovers } = report;
  const faults = Object.entries(report.faults).map(([kind, count]) => `${kind} ${count}`);
  const ends = Object.entries(report.ownEnds).map(([part, count]) => `${part} ${count}`);
  const matching = disks.filter((one) => one.matches).length;
  return [
    `seed ${report.seed}, ${report.minutes} minutes of faults`,
    `faults        ${sum(Object.values(report.faults))}: ${faults.join(', ')}`,
    ...(ends.length > 0 ? [`restarted     ${ends.join(', ')} (ended by themselves)`] : []),
    `full resyncs  ${report.fullResyncs}`,
    ...report.resyncs.map(
      (one) =>
        `              ${one.machine}: ${one.reason}, ${one.explained ? 'explained by a fault' : 'NOT EXPLAINED'} (${one.detail})`,
    ),
    `bytes         written ${mib(bytes.written)}, received ${mib(bytes.received)}, in the vault ${mib(bytes.inVault)}, sent again ${mib(bytes.sentAgain)}`,
    `freeze        longest ${freeze.longestMs.toFixed(0)} ms; longest that a write was held up ${freeze.longestWriteHeldUpMs.toFixed(0)} ms`,
    `RPO           ${rpo === null ? 'not measured' : `p50 ${rpo.p50.toFixed(0)} s, p99 ${rpo.p99.toFixed(0)} s, max ${rpo.max.toFixed(0)} s`}`,
    ...takeovers.map(
      (one) =>
        `takeover      ${one.machine}, ${one.kind}: moved after ${one.movedSeconds.toFixed(1)} s (epoch ${one.epochBefore} → ${one.epochAfter}), protected after ${one.protectedSeconds.toFixed(1)} s, the old one fenced ${one.fencedSeconds.toFixed(1)} s after its return; sent ${mib(one.resentBytes)} of ${mib(one.writtenBytes)} written since the last barrier`,
    ),
    `points        ${points.made} made, ${points.rootsCompared} roots compared`,
    `disks         ${matching} of ${disks.length} are the source's, byte for byte`,
    ...report.problems.map((problem) => `PROBLEM       ${problem}`),
  ];
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, one) => total + one, 0);
}

function mib(bytes: number): string {
  return `${(bytes / (1 << 20)).toFixed(1)} MiB`;
}
