/** Every call to the emulator, in memory and as lines of JSON in a file, so that a test can count what was created. */
import { appendFileSync } from 'node:fs';

export interface LoggedCall {
  sequence: number;
  time: string;
  method: string;
  path: string;
  /** Such as `PUT disks` or `POST disks/beginGetAccess`. */
  operation: string;
  /** Of the resource; empty when the call is about none. */
  name: string;
  /** 0: the connection was broken instead of an answer. */
  status: number;
  /** The call brought a resource into being. */
  created: boolean;
  /** The call took a resource away. */
  deleted: boolean;
  /** Azure's error code, when the call was refused. */
  code?: string;
}

const KEPT = 100_000;

export class CallLog {
  readonly #file: string;
  #calls: LoggedCall[] = [];
  #sequence = 0;

  constructor(file: string) {
    this.#file = file;
  }

  add(call: Omit<LoggedCall, 'sequence' | 'time'>): LoggedCall {
    const logged = { sequence: ++this.#sequence, time: new Date().toISOString(), ...call };
    this.#calls.push(logged);
    if (this.#calls.length > KEPT) this.#calls.shift();
    appendFileSync(this.#file, `${JSON.stringify(logged)}\n`);
    return logged;
  }

  list(): LoggedCall[] {
    return [...this.#calls];
  }
}

/** How often each resource was brought into being: `disks/web-0` → 1. */
export function creations(calls: readonly LoggedCall[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const call of calls.filter((one) => one.created)) {
    const key = `${call.operation.replace(/^\S+ /, '')}/${call.name}`;
    counts[key] = (counts[key] ?? 0) + 1;
  }
  return counts;
}
