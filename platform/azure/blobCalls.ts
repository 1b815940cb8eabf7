/**
 * How every storage call is made: bounded in time, retried with backoff while that can help, stopped by the caller's signal, its
 * failure translated. The SDK's own retries are off, because only we know which requests may be sent twice.
 */
import type { Clock, Random } from '../ports.ts';
import { StoreError } from '../storeErrors.ts';
import {
  type BlobCallName,
  blobFailure,
  certainlyNotDone,
  translateBlobError,
  worthRetrying,
} from './blobErrors.ts';

export interface BlobPatience {
  /** A try is given up when nothing moved for this long. */
  stallMs: number;
  /** No new try starts after this long. */
  totalMs: number;
}

export const defaultPatience: BlobPatience = { stallMs: 30_000, totalMs: 60_000 };

/** What the kernel may hold of a body that we think sent; on a slow link it drains long after our last progress. */
const SEND_BUFFER = 4 << 20;

const BACKOFF_FIRST_MS = 200;
const BACKOFF_MAX_MS = 10_000;

export interface BlobTry {
  /** Aborts when the caller does, and when the try stalls. */
  signal: AbortSignal;
  /** Bytes moved: the try is alive. */
  progress: () => void;
  /** An earlier try may have taken effect although we got no answer. */
  maybeDone: boolean;
  /** Ends the try with this error, for a body that breaks while it is sent. */
  fail: (error: unknown) => void;
}

export interface BlobCall extends BlobCallName {
  signal?: AbortSignal | undefined;
  /** Size of the body that is sent. */
  sends?: number;
  /** `ifNotDone`: only while the service certainly did nothing. A page write whose try may still land must not be sent again. */
  retry?: 'always' | 'ifNotDone';
}

export class BlobCalls {
  readonly clock: Clock;
  readonly random: Random;
  /** Host and container, for messages. */
  readonly account: string;
  readonly #patience: BlobPatience;

  constructor(
    deps: { clock: Clock; random: Random },
    options: { account: string; patience?: BlobPatience | undefined },
  ) {
    this.clock = deps.clock;
    this.random = deps.random;
    this.account = options.account;
    this.#patience = options.patience ?? defaultPatience;
  }

  /** Throws StoreError, or the caller's signal's reason. */
  async run<T>(call: BlobCall, attempt: (context: BlobTry) => Promise<T>): Promise<T> {
    const started = this.clock.monotonic();
    let maybeDone = false;
    for (let tries = 1; ; tries += 1) {
      try {
        return await this.#try(call, maybeDone, attempt);
      } catch (error) {
        if (call.signal?.aborted) throw call.signal.reason;
        const failure = blobFailure(error);
        const notDone = certainlyNotDone(failure);
        const allowed = call.retry === 'ifNotDone' ? notDone : true;
        const pause = Math.max(this.#backoff(tries), retryAfterMs(error));
        const late = this.clock.monotonic() - started + pause > this.#patience.totalMs;
        const final = error instanceof StoreError && !error.transient;
        if (final || !allowed || !worthRetrying(failure) || late)
          throw translateBlobError(error, { ...call, account: this.account });
        maybeDone ||= !notDone;
        await this.clock.sleep(pause, call.signal);
      }
    }
  }

  async #try<T>(
    call: BlobCall,
    maybeDone: boolean,
    attempt: (context: BlobTry) => Promise<T>,
  ): Promise<T> {
    call.signal?.throwIfAborted();
    const controller = new AbortController();
    let reason: unknown;
    const fail = (error: unknown) => {
      reason ??= error;
      controller.abort();
    };
    // A full buffer may take as long again: 128 KiB/s with the default patience.
    const buffered = Math.min(call.sends ?? 0, SEND_BUFFER) / SEND_BUFFER;
    const stallMs = this.#patience.stallMs * (1 + buffered);
    const onStall = () =>
      fail(
        new StoreError(
          'VaultUnreachable',
          `${call.operation} ${call.object} in ${this.account} got no answer: nothing moved for ${Math.ceil(stallMs / 1000)} s. Check the network between here and the storage account.`,
        ),
      );
    const timer = setTimeout(onStall, stallMs);
    const progress = () => {
      // A progress report may come after the try has ended; refreshing then would start the timer again.
      if (!ended) timer.refresh();
    };
    let ended = false;
    const onAbort = () => fail(call.signal?.reason);
    call.signal?.addEventListener('abort', onAbort, { once: true });
    try {
      return await attempt({ signal: controller.signal, progress, maybeDone, fail });
    } catch (error) {
      // What the SDK throws on abort says only that it was aborted.
      throw reason ?? error;
    } finally {
      ended = true;
      clearTimeout(timer);
      call.signal?.removeEventListener('abort', onAbort);
    }
  }

  /** Doubles from 0.2 s; between half of it and all, so that many who failed together do not come back together. */
  #backoff(tries: number): number {
    const ceiling = Math.min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2 ** (tries - 1));
    const word = new DataView(this.random.bytes(4).buffer).getUint32(0);
    return ceiling * (0.5 + word / 2 ** 33);
  }
}

function retryAfterMs(error: unknown): number {
  const headers = (
    error as { response?: { headers?: { get?: (name: string) => string | undefined } } } | null
  )?.response?.headers;
  const seconds = Number(headers?.get?.('retry-after') ?? 0);
  return Number.isFinite(seconds) && seconds > 0 ? seconds * 1000 : 0;
}
