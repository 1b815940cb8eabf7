/** What an agent told over all its lives. */
import { readFileSync } from 'node:fs';

export interface ResyncTold {
  reason: string;
  detail: string;
  atMs: number;
}

export class AgentLog {
  /** The first one is the initial replication. */
  readonly resyncs: readonly ResyncTold[];

  /** Of a file of JSON lines; lines that are none, such as one that a death cut, tell nothing. */
  constructor(file: string | undefined) {
    const lines = file === undefined ? [] : readFileSync(file, 'utf8').split('\n');
    this.resyncs = lines.flatMap((line) => {
      if (!line.includes('"A resync begins"')) return [];
      try {
        const { reason, detail, time } = JSON.parse(line) as Record<string, string>;
        return [{ reason: reason ?? '', detail: detail ?? '', atMs: Date.parse(time ?? '') }];
      } catch {
        return [];
      }
    });
  }
}
