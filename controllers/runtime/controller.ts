/** Takes keys from a queue and reconciles them, a few at a time, until told to stop. */
import { errorCode, errorMessage } from '../../platform/errors.ts';
import { isKubeError, type KubeObject } from '../../platform/kubernetes.ts';
import type { Clock, Logger, Random } from '../../platform/ports.ts';
import type { BackoffOptions } from './backoff.ts';
import type { Informer } from './informer.ts';
import type { ObjectKey } from './objectKey.ts';
import { WorkQueue } from './workQueue.ts';

export interface ReconcileContext {
  /** Aborts when the work must stop: the lease is lost, or the process ends. */
  signal: AbortSignal;
  /** Carries controller and key. */
  logger: Logger;
}

export interface ReconcileResult {
  /** Look again after this time, even if nothing changes. */
  requeueAfterMs?: number;
}

/** Brings the world closer to what the object under the key asks. Must be idempotent; a throw means "again, later". */
export type Reconcile = (
  key: ObjectKey,
  context: ReconcileContext,
) => Promise<ReconcileResult | undefined>;

/** One reconcile, for metrics. */
export interface ReconcileObservation {
  controller: string;
  durationMs: number;
  /** `conflict`: the object changed meanwhile, which is normal. */
  outcome: 'success' | 'conflict' | 'error';
  /** The error's code. */
  code: string | undefined;
}

export interface ControllerOptions {
  name: string;
  reconcile: Reconcile;
  workers?: number;
  backoff?: Partial<BackoffOptions>;
  observe?: (observation: ReconcileObservation) => void;
}

/** All that a controller waits for before it works, whatever type it caches. */
export type AnyInformer = Pick<
  Informer<KubeObject>,
  'untilSynced' | 'synced' | 'run' | 'type' | 'lastContactMs'
>;

export class Controller {
  readonly name: string;
  readonly #deps: { clock: Clock; random: Random; logger: Logger };
  readonly #options: ControllerOptions;
  readonly #informers: AnyInformer[] = [];
  /** Subscribes to an informer; called by each `run`, for a queue that was shut down is not used again. */
  readonly #subscriptions: ((queue: WorkQueue) => () => void)[] = [];
  #queue: WorkQueue | undefined;

  constructor(deps: { clock: Clock; random: Random; logger: Logger }, options: ControllerOptions) {
    this.name = options.name;
    this.#deps = { ...deps, logger: deps.logger.child({ controller: options.name }) };
    this.#options = options;
  }

  /** Reconciles the object itself at each of its changes, or the keys that `keys` gives, for both its old and new content. */
  watch<T extends KubeObject>(
    informer: Informer<T>,
    keys?: (object: T) => readonly ObjectKey[],
  ): this {
    this.#informers.push(informer);
    this.#subscriptions.push((queue) =>
      informer.onChange(({ key, before, after }) => {
        if (keys === undefined) {
          queue.add(key);
          return;
        }
        for (const object of [before, after])
          if (object !== undefined) for (const concerned of keys(object)) queue.add(concerned);
      }),
    );
    return this;
  }

  /** Only waits for the informer before it starts: a reconcile reads from it. */
  needs(...informers: AnyInformer[]): this {
    this.#informers.push(...informers);
    return this;
  }

  /** Asks for a reconcile. Does nothing while not running: all objects are looked at when it starts. */
  enqueue(key: ObjectKey): void {
    this.#queue?.add(key);
  }

  /** Keys that are ready and wait for a worker. */
  get depth(): number {
    return this.#queue?.depth ?? 0;
  }

  /**
   * Waits until the caches are complete, then works until the signal aborts and what is being reconciled has ended. May be
   * run again after that.
   */
  async run(signal: AbortSignal): Promise<void> {
    try {
      await Promise.all(this.#informers.map((informer) => informer.untilSynced(signal)));
    } catch (error) {
      if (signal.aborted) return;
      throw error;
    }
    const { backoff, workers } = this.#options;
    const queue = new WorkQueue(this.#deps, backoff === undefined ? {} : { backoff });
    this.#queue = queue;
    const unsubscribe = this.#subscriptions.map((subscribe) => subscribe(queue));
    const stop = () => queue.shutDown();
    if (signal.aborted) stop();
    else signal.addEventListener('abort', stop, { once: true });
    try {
      await Promise.all(Array.from({ length: workers ?? 4 }, () => this.#work({ queue, signal })));
    } finally {
      signal.removeEventListener('abort', stop);
      for (const leave of unsubscribe) leave();
      this.#queue = undefined;
    }
  }

  async #work(run: { queue: WorkQueue; signal: AbortSignal }): Promise<void> {
    for (;;) {
      const key = await run.queue.get();
      if (key === undefined) return;
      await this.#reconcileOne({ ...run, key });
      run.queue.done(key);
    }
  }

  async #reconcileOne(run: {
    queue: WorkQueue;
    signal: AbortSignal;
    key: ObjectKey;
  }): Promise<void> {
    const { queue, signal, key } = run;
    const logger = this.#deps.logger.child({ key });
    const startedMs = this.#deps.clock.monotonic();
    let outcome: ReconcileObservation['outcome'] = 'success';
    let code: string | undefined;
    try {
      const result = await this.#options.reconcile(key, { signal, logger });
      queue.forget(key);
      if (result?.requeueAfterMs !== undefined) queue.addAfter(key, result.requeueAfterMs);
    } catch (error) {
      if (signal.aborted) return;
      code = errorCode(error);
      outcome = isKubeError(error, 'Conflict') ? 'conflict' : 'error';
      const retryInMs = queue.addRateLimited(key);
      logger[outcome === 'conflict' ? 'debug' : 'error'](
        { code, retryInMs, error: errorMessage(error), stack: stackOf(error) },
        outcome === 'conflict' ? 'the object changed meanwhile' : 'the reconcile failed',
      );
    }
    const durationMs = this.#deps.clock.monotonic() - startedMs;
    this.#options.observe?.({ controller: this.name, durationMs, outcome, code });
  }
}

/** Of errors that are nobody's plan: those of ours say all in their message. */
function stackOf(error: unknown): string | undefined {
  return errorCode(error) === 'Unknown' && error instanceof Error ? error.stack : undefined;
}
