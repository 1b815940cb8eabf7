/** What an agent told over all its lives. */
import { readFileSync } from 'node:fs';

export interface ResyncTold {
  reason: string;
  detail: string;
  /** When the agent knew that it needs one: it begins only once a process server is reached. */
  atMs: number;
}

const NEEDED: ReadonlySet<string> = new Set(['A resync will be needed', 'Tracking is lost']);

export class AgentLog {
  /** Those that began, in order; the first one is the initial replication. */
  readonly resyncs: readonly ResyncTold[];

  /** Of a file of JSON lines; lines that are none, such as one that a death cut, tell nothing. */
  constructor(file: string | undefined) {
    const lines = file === undefined ? [] : readFileSync(file, 'utf8').split('\n');
    const resyncs: ResyncTold[] = [];
    let neededMs: number | undefined;
    for (const { msg = '', time = '', reason = '', detail = '' } of lines.map(parsed)) {
      if (NEEDED.has(msg)) neededMs ??= Date.parse(time);
      if (msg !== 'A resync begins') continue;
      resyncs.push({ reason, detail, atMs: neededMs ?? Date.parse(time) });
      neededMs = undefined;
    }
    this.resyncs = resyncs;
  }
}

function parsed(line: string): Partial<Record<string, string>> {
  try {
    return JSON.parse(line) as Record<string, string>;
  } catch {
    return {};
  }
}
