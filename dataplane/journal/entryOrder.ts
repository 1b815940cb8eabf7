/**
 * The order of one machine's journal, kept by two queues. `submit` decides the order in which entries reach the log; `operate` is the order
 * in which durable entries take effect on the leaf tables, and in which everything that reads or syncs the tables runs. Nothing takes effect
 * on a table before it is durable in the log: a table never knows what the journal does not hold.
 */
import type { Lsn } from '../../vault/documents/fields.ts';
import type { BarrierSummary } from '../../vault/documents/machineStatus.ts';
import type { BacklogEntry } from './backlog.ts';
import type { CacheLog } from './cacheLog.ts';
import type { LogRun } from './logRun.ts';

/** What goes into the log in one piece. */
export interface JournalEntry {
  firstLsn: Lsn;
  count: number;
  payload: Uint8Array;
  payloadCrc?: number | undefined;
  barrier: BarrierSummary | undefined;
}

export interface EntryOrderDeps {
  log: CacheLog;
  /** Resolves when the cache has room, or when the journal ends. */
  waitForSpace(): Promise<void>;
  /** Throws once the journal takes nothing more. */
  assertAccepting(): void;
  /** An entry of this machine lies in a log file. */
  onJournaled(run: LogRun): void;
}

export class EntryOrder {
  readonly #deps: EntryOrderDeps;
  readonly #machine: { machineId: string; incarnation: bigint };
  #submitted: Promise<unknown> = Promise.resolve();
  #operations: Promise<unknown> = Promise.resolve();
  #waiting = 0;

  constructor(deps: EntryOrderDeps, machine: { machineId: string; incarnation: bigint }) {
    this.#deps = deps;
    this.#machine = machine;
  }

  /** Whether an entry waits for space now. */
  get waitingForSpace(): boolean {
    return this.#waiting > 0;
  }

  /** Runs `begin` when everything submitted before has been handed on; what it starts may still be under way afterwards. */
  submit<T>(begin: () => Promise<T>): Promise<T> {
    const result = this.#submitted.then(begin);
    this.#submitted = result.catch(() => {});
    return result;
  }

  /** Runs `act` after every operation before it. */
  operate<T>(act: () => Promise<T>): Promise<T> {
    const result = this.#operations.then(act);
    this.#operations = result.catch(() => {});
    return result;
  }

  /** Runs `act` once everything submitted before has taken effect, and nothing submitted later has. */
  async operateInTurn(act: () => Promise<void>): Promise<void> {
    const { done } = await this.submit(async () => ({ done: this.operate(act) }));
    await done;
  }

  /** Once there is room, hands the entry to the log; resolves when it has taken effect. */
  async append(
    entry: JournalEntry,
    takeEffect: (journaled: BacklogEntry) => Promise<void>,
  ): Promise<void> {
    const { done } = await this.submit(async () => {
      this.#waiting += 1;
      try {
        // A batch that is given up leaves its LSNs behind: nothing may follow it.
        await this.#deps.waitForSpace();
      } finally {
        this.#waiting -= 1;
      }
      this.#deps.assertAccepting();
      return { done: this.toLog(entry, takeEffect) };
    });
    await done;
  }

  /** Hands an entry to the log now; it takes effect when it is durable and everything before it has. */
  toLog(
    entry: JournalEntry,
    takeEffect: (journaled: BacklogEntry) => Promise<void>,
  ): Promise<void> {
    const { machineId, incarnation } = this.#machine;
    const { firstLsn, count, payload, barrier } = entry;
    const lastLsn = firstLsn + BigInt(count) - 1n;
    const durable = this.#deps.log.append({ machineId, incarnation, ...entry }).then((place) => {
      // At once: until it is known where the entry lies, its file could be taken for one that nobody needs.
      this.#deps.onJournaled({ machineId, incarnation, firstLsn, lastLsn, place });
      return place;
    });
    durable.catch(() => {});
    return this.operate(async () => {
      const place = await durable;
      const payloadLength = payload.length;
      await takeEffect({ machineId, incarnation, firstLsn, count, payloadLength, place, barrier });
    });
  }

  /** Resolves when nothing is under way any more; never rejects. */
  async settled(): Promise<void> {
    await this.#submitted;
    await this.#operations;
  }
}
