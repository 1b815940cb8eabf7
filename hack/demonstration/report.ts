/** What a run of the demonstration found, as `--json` gives it. */
import { randomBytes } from 'node:crypto';
import { lstatSync, renameSync, rmSync, writeFileSync } from 'node:fs';

export interface Report {
  ok: boolean;
  error?: string;
  /** bytes: the size of the disks, holes too; bytesSent: of these, what held anything and was sent. */
  initialReplication: { bytes: number; bytesSent: number; seconds: number } | null;
  barriers: { count: number; freezeMsMax: number } | null;
  /** How old the recovery point was at the disaster. */
  rpoSeconds: number | null;
  rtoSeconds: number | null;
  recoveryPoint: { lsn: string; time: string } | null;
  rootsMatch: boolean | null;
  /** Null with disks or a workload of others, like the next one. */
  recordAtBarrier: number | null;
  recordRecovered: number | null;
  /** Null with disks of others: nobody knows what their machine should say. */
  booted: boolean | null;
  recoveredDisks?: string[];
}

export function emptyReport(): Report {
  return {
    ok: false,
    initialReplication: null,
    barriers: null,
    rpoSeconds: null,
    rtoSeconds: null,
    recoveryPoint: null,
    rootsMatch: null,
    recordAtBarrier: null,
    recordRecovered: null,
    booted: null,
  };
}

/** Prints a report, or replaces a file: whoever looks there sees a whole report or none. */
export function publish(report: object, to: string | 'stdout'): void {
  const text = `${JSON.stringify(report, undefined, 2)}\n`;
  if (to === 'stdout') {
    process.stdout.write(text);
    return;
  }
  // A device, a pipe or a link must not be replaced by a file.
  if (lstatSync(to, { throwIfNoEntry: false })?.isFile() === false) {
    writeFileSync(to, text);
    return;
  }
  const temporary = `${to}.${randomBytes(4).toString('hex')}`;
  try {
    writeFileSync(temporary, text);
    renameSync(temporary, to);
  } finally {
    rmSync(temporary, { force: true });
  }
}
