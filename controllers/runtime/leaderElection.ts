/**
 * One of several operators leads: it holds a Lease and renews it. The others watch it, and one takes it once it has not been
 * renewed for its duration, by its own monotonic clock: nobody's wall clock is compared with anybody's.
 *
 * The leader stops its work when it could not renew for `renewDeadlineMs`, counted from the start of the last renewal that
 * succeeded. That is shorter than the duration, so the work has stopped before another may begin.
 */
import { errorCode, errorMessage, FarshoreError } from '../../platform/errors.ts';
import {
  isKubeError,
  type KubeClient,
  kubeTypes,
  type LeaseObject,
} from '../../platform/kubernetes.ts';
import type { Clock, Logger, Random } from '../../platform/ports.ts';
import { fraction } from './backoff.ts';

export interface LeaderElectionOptions {
  lease: { namespace: string; name: string };
  /** Unique to this process, and telling: a pod's name. */
  identity: string;
  leaseDurationMs?: number;
  renewDeadlineMs?: number;
  retryPeriodMs?: number;
}

/** The lease could not be renewed in time: the reason with which the work's signal aborts. */
export class LeadershipLost extends FarshoreError {
  constructor(message: string) {
    super('LeadershipLost', message);
  }
}

export class LeaderElection {
  readonly #deps: { client: KubeClient; clock: Clock; random: Random; logger: Logger };
  readonly #identity: string;
  readonly #lease: { namespace: string; name: string };
  readonly #leaseDurationMs: number;
  readonly #renewDeadlineMs: number;
  readonly #retryPeriodMs: number;
  /** The lease as last seen, and when (monotonic) it was first seen so. */
  #observed: { stamp: string; sinceMs: number } | undefined;
  #leading = false;
  /** Monotonic; when the lease was last known to be ours, while leading. */
  #heldSinceMs = 0;

  constructor(
    deps: { client: KubeClient; clock: Clock; random: Random; logger: Logger },
    options: LeaderElectionOptions,
  ) {
    this.#deps = deps;
    this.#identity = options.identity;
    this.#lease = options.lease;
    this.#leaseDurationMs = options.leaseDurationMs ?? 15_000;
    this.#renewDeadlineMs = options.renewDeadlineMs ?? 10_000;
    this.#retryPeriodMs = options.retryPeriodMs ?? 2_000;
    if (
      this.#retryPeriodMs * 2 > this.#renewDeadlineMs ||
      this.#renewDeadlineMs >= this.#leaseDurationMs
    )
      throw new RangeError('a lease needs 2 × retryPeriod ≤ renewDeadline < leaseDuration');
  }

  get leading(): boolean {
    return this.#leading;
  }

  /** False as soon as somebody else might lead, also before anything could be told: a suspended process wakes up in the middle. */
  get isHeld(): boolean {
    const deadlineMs = this.#heldSinceMs + this.#renewDeadlineMs;
    return this.#leading && this.#deps.clock.monotonic() < deadlineMs;
  }

  /**
   * Waits for the lease, then does `work`, whose signal aborts when the lease is lost or `signal` aborts. After a loss it competes
   * again once the work has ended. Resolves when `signal` has aborted or the work ended by itself; the lease is given back then.
   */
  async run(signal: AbortSignal, work: (signal: AbortSignal) => Promise<void>): Promise<void> {
    while (!signal.aborted) {
      const heldSinceMs = await this.#acquire(signal);
      if (heldSinceMs === undefined) return;
      const lost = await this.#lead({ signal, work, heldSinceMs });
      if (!lost) return;
    }
  }

  /** Monotonic ms from which the lease is ours; undefined when the signal aborted first. */
  async #acquire(signal: AbortSignal): Promise<number | undefined> {
    while (!signal.aborted) {
      const startedMs = this.#deps.clock.monotonic();
      if ((await this.#tryHold()) === true) return startedMs;
      await this.#pause(signal);
    }
    return undefined;
  }

  async #lead(term: {
    signal: AbortSignal;
    work: (signal: AbortSignal) => Promise<void>;
    heldSinceMs: number;
  }): Promise<boolean> {
    const { logger } = this.#deps;
    logger.info({ identity: this.#identity, lease: this.#lease.name }, 'leading');
    this.#leading = true;
    this.#heldSinceMs = term.heldSinceMs;
    const end = new AbortController();
    const workSignal = AbortSignal.any([term.signal, end.signal]);
    const worked = term.work(workSignal).finally(() => end.abort(new Error('the work has ended')));
    // Awaited below; a failure before that is not an unhandled one.
    worked.catch(() => undefined);
    try {
      const lost = await this.#renew(workSignal);
      if (lost) {
        const error = new LeadershipLost(
          `The lease ${this.#lease.namespace}/${this.#lease.name} could not be renewed for ${this.#renewDeadlineMs} ms; another operator may take over.`,
        );
        logger.warn({ code: error.code }, error.message);
        end.abort(error);
        await worked.catch((failure) => this.#tellFailure(failure));
        return true;
      }
      await worked;
      return false;
    } finally {
      this.#leading = false;
      await this.#release();
    }
  }

  /** Renews until told to end (false), or until the lease is lost (true). */
  async #renew(until: AbortSignal): Promise<boolean> {
    const { clock } = this.#deps;
    while (!until.aborted) {
      await this.#pause(until);
      if (until.aborted) return false;
      const deadlineMs = this.#heldSinceMs + this.#renewDeadlineMs;
      const startedMs = clock.monotonic();
      const answer = await this.#within(deadlineMs - startedMs, this.#tryHold());
      if (answer === true) this.#heldSinceMs = startedMs;
      else if (answer === 'taken' || clock.monotonic() >= deadlineMs) return true;
    }
    return false;
  }

  /** What the call answers, or false once the time has passed: an answer that never comes must not keep a leader in place. */
  async #within<T>(ms: number, call: Promise<T>): Promise<T | false> {
    const cancel = new AbortController();
    const late = this.#deps.clock
      .sleep(Math.max(0, ms), cancel.signal)
      .then(() => false as const)
      .catch(() => false as const);
    try {
      return await Promise.race([call, late]);
    } finally {
      cancel.abort();
    }
  }

  /** True: the lease is ours. `taken`: another one's. False: not now, or nobody knows. Does not throw. */
  async #tryHold(): Promise<boolean | 'taken'> {
    const { client, logger } = this.#deps;
    try {
      const lease = await client.get<LeaseObject>(kubeTypes.lease, this.#lease);
      if (lease === undefined) {
        await client.create<LeaseObject>(kubeTypes.lease, {
          apiVersion: 'coordination.k8s.io/v1',
          kind: 'Lease',
          metadata: { ...this.#lease },
          spec: this.#spec(undefined),
        });
        return true;
      }
      if (!this.#isOursToTake(lease)) return this.#leading ? 'taken' : false;
      await client.replace<LeaseObject>(kubeTypes.lease, { ...lease, spec: this.#spec(lease) });
      return true;
    } catch (error) {
      const telling = isKubeError(error, 'Conflict', 'AlreadyExists') ? 'debug' : 'warn';
      logger[telling](
        { code: errorCode(error), error: errorMessage(error), lease: this.#lease.name },
        'the lease was not written',
      );
      return false;
    }
  }

  #isOursToTake(lease: LeaseObject): boolean {
    const nowMs = this.#deps.clock.monotonic();
    const holder = lease.spec?.holderIdentity ?? '';
    if (holder === '' || holder === this.#identity) return true;
    const stamp = `${holder} ${lease.spec?.renewTime} ${lease.metadata.resourceVersion}`;
    if (this.#observed?.stamp !== stamp) this.#observed = { stamp, sinceMs: nowMs };
    // The holder may have been started with a longer duration than ours.
    const durationMs = Math.max(
      this.#leaseDurationMs,
      (lease.spec?.leaseDurationSeconds ?? 0) * 1000,
    );
    return nowMs - this.#observed.sinceMs >= durationMs;
  }

  #spec(before: LeaseObject | undefined): NonNullable<LeaseObject['spec']> {
    const now = new Date(this.#deps.clock.now()).toISOString().replace('Z', '000Z');
    const ours = before?.spec?.holderIdentity === this.#identity;
    return {
      holderIdentity: this.#identity,
      leaseDurationSeconds: Math.ceil(this.#leaseDurationMs / 1000),
      acquireTime: ours ? (before?.spec?.acquireTime ?? now) : now,
      renewTime: now,
      leaseTransitions:
        (before?.spec?.leaseTransitions ?? 0) + (before !== undefined && !ours ? 1 : 0),
    };
  }

  /** So that the next one need not wait. Only what is still ours is given back. */
  async #release(): Promise<void> {
    const { client, logger } = this.#deps;
    try {
      const lease = await client.get<LeaseObject>(kubeTypes.lease, this.#lease);
      if (lease?.spec?.holderIdentity !== this.#identity) return;
      await client.replace<LeaseObject>(kubeTypes.lease, {
        ...lease,
        spec: { ...lease.spec, holderIdentity: '', leaseDurationSeconds: 1 },
      });
    } catch (error) {
      logger.debug(
        { code: errorCode(error) },
        'the lease was not given back; it runs out by itself',
      );
    }
  }

  #tellFailure(error: unknown): void {
    if (error instanceof LeadershipLost) return;
    this.#deps.logger.error(
      { code: errorCode(error), error: errorMessage(error) },
      'the work failed while it was being stopped',
    );
  }

  async #pause(signal: AbortSignal): Promise<void> {
    const ms = this.#retryPeriodMs * (1 + fraction(this.#deps.random) / 5);
    await this.#deps.clock.sleep(ms, signal).catch(() => undefined);
  }
}
