/**
 * Failovers that run, one task each. A reconcile starts a task and returns; a task ends when its failover rests, or when this
 * operator must stop. Nothing is lost with a task: the ledger says where to go on.
 */
import { errorCode, errorMessage } from '../../platform/errors.ts';
import type { Clock, Logger } from '../../platform/ports.ts';
import type { FailoverDocument } from '../../vault/documents/failover.ts';
import type { ObjectKey } from '../runtime/objectKey.ts';

export type RunTask = (options: {
  signal: AbortSignal;
  onChange(document: FailoverDocument): void;
}) => Promise<FailoverDocument>;

interface Task {
  abort: AbortController;
  ended: Promise<void>;
  newest: FailoverDocument | undefined;
}

/** Ends by which a task only says that somebody else goes on, or that it was told to stop. */
const EXPECTED = new Set(['LedgerConflict', 'NotInControl', 'ABORT_ERR', 'LeadershipLost']);

const RETRY_FIRST_MS = 1_000;
const RETRY_LONGEST_MS = 60_000;

export class FailoverTasks {
  readonly #tasks = new Map<ObjectKey, Task>();
  readonly #failures = new Map<ObjectKey, { count: number; notBeforeMs: number }>();
  readonly #clock: Clock;
  readonly #onChange: (key: ObjectKey) => void;

  /** `onChange`: the ledger's entry of this key is another now, or its task ended. */
  constructor(deps: { clock: Clock; onChange: (key: ObjectKey) => void }) {
    this.#clock = deps.clock;
    this.#onChange = deps.onChange;
  }

  /** How long a task that was interrupted by an error must still wait; 0 when it may start. */
  waitMs(key: ObjectKey): number {
    const failure = this.#failures.get(key);
    return failure === undefined ? 0 : Math.max(0, failure.notBeforeMs - this.#clock.monotonic());
  }

  forget(key: ObjectKey): void {
    this.#failures.delete(key);
  }

  isRunning(key: ObjectKey): boolean {
    return this.#tasks.has(key);
  }

  /** The ledger's entry as the running task last wrote it. */
  newest(key: ObjectKey): FailoverDocument | undefined {
    return this.#tasks.get(key)?.newest;
  }

  /** Does nothing when the key's task runs already. `signal`: leadership. */
  start(key: ObjectKey, run: RunTask, options: { signal: AbortSignal; log: Logger }): void {
    if (this.#tasks.has(key) || options.signal.aborted) return;
    const abort = new AbortController();
    const task: Task = { abort, newest: undefined, ended: Promise.resolve() };
    this.#tasks.set(key, task);
    task.ended = this.#run(key, run, {
      ...options,
      task,
      signal: AbortSignal.any([options.signal, abort.signal]),
    });
  }

  /** Stops the key's task and waits for its end. */
  async stop(key: ObjectKey): Promise<void> {
    const task = this.#tasks.get(key);
    task?.abort.abort();
    await task?.ended;
  }

  /** Resolves when every task has ended; their signals must have aborted, or they rest. */
  async ended(): Promise<void> {
    await Promise.all([...this.#tasks.values()].map((task) => task.ended));
  }

  async #run(
    key: ObjectKey,
    run: RunTask,
    options: { task: Task; signal: AbortSignal; log: Logger },
  ): Promise<void> {
    const { task, signal, log } = options;
    try {
      await run({
        signal,
        onChange: (document) => {
          task.newest = document;
          this.#onChange(key);
        },
      });
      this.#failures.delete(key);
    } catch (error) {
      const code = errorCode(error);
      if (!signal.aborted && !EXPECTED.has(code)) {
        const count = (this.#failures.get(key)?.count ?? 0) + 1;
        const delayMs = Math.min(RETRY_LONGEST_MS, RETRY_FIRST_MS * 2 ** Math.min(count - 1, 10));
        this.#failures.set(key, { count, notBeforeMs: this.#clock.monotonic() + delayMs });
        log.error(
          { code, error: errorMessage(error) },
          'the failover was interrupted; it goes on from the ledger',
        );
      }
    } finally {
      this.#tasks.delete(key);
      if (!signal.aborted) this.#onChange(key);
    }
  }
}
