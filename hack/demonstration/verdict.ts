/** What came of a Failover, and whether that is what was promised. */
import type { Failover } from '../../crds/index.ts';
import { RECOVERED } from './manifests.ts';

export interface Verdict {
  rootsMatch: boolean | null;
  /** Null when nobody knows what the machine should say. */
  booted: boolean | null;
  /** The last record that the booted machine has, all before it intact; null when it did not say so. */
  recordRecovered: number | null;
  /** Why the recovery is no good; undefined when it is. */
  trouble: string | undefined;
}

/** Phases in which a Failover waits for people or has ended. */
export const SETTLED: ReadonlySet<string> = new Set([
  'FailedOver',
  'Committed',
  'CleanedUp',
  'Failed',
  'Rejected',
]);

/** `saysWhatItRecovered`: it is the small Linux of our own, which checks its records and says so. */
export function verdictOf(
  { status }: Pick<Failover, 'status'>,
  options: { saysWhatItRecovered: boolean },
): Verdict {
  const said = status?.evidence?.serialConsole ?? '';
  const record = /record=(\d+) intact=yes/.exec(said)?.[1];
  const isUp = status?.phase === 'FailedOver' || status?.phase === 'Committed';
  const booted = options.saysWhatItRecovered ? isUp && said.includes(RECOVERED) : null;
  const verdict = {
    rootsMatch: status?.rootsMatch ?? null,
    booted,
    recordRecovered: options.saysWhatItRecovered && record !== undefined ? Number(record) : null,
  };
  return { ...verdict, trouble: troubleOf(status, verdict) };
}

function troubleOf(
  status: Failover['status'],
  verdict: Pick<Verdict, 'rootsMatch' | 'booted'>,
): string | undefined {
  if (status?.phase === 'Failed' || status?.phase === 'Rejected') {
    const why = status.conditions?.find((one) => one.type === 'Ready')?.message;
    return `the failover was ${status.phase === 'Failed' ? 'begun and failed' : 'refused'}: ${why ?? 'see its status'}`;
  }
  if (verdict.rootsMatch !== true) return 'the recovered disks do not have the roots of the source';
  if (verdict.booted === false) return 'the recovered machine did not come up';
  return undefined;
}
