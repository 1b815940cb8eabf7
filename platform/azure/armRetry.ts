/**
 * How often a call to Azure Resource Manager is tried.
 *
 * The SDKs' own policy sleeps for the whole Retry-After (20 minutes are usual) and is switched off. Ours waits for what is short
 * and hands back the rest as Throttled, so that the caller can do something else meanwhile. Every method may be repeated: PUT and
 * DELETE are idempotent by ARM's contract, and the POSTs that we make (grant, revoke, boot diagnostics) are too.
 */
import {
  type Pipeline,
  type PipelinePolicy,
  type PipelineResponse,
  RestError,
} from '@azure/core-rest-pipeline';
import { throttled } from './armErrors.ts';

export interface ArmRetry {
  /** Of one request, the first one included. */
  attempts: number;
  firstWaitMs: number;
  /** A longer Retry-After is not waited for. */
  longestWaitMs: number;
}

export const defaultArmRetry: ArmRetry = {
  attempts: 5,
  firstWaitMs: 500,
  longestWaitMs: 30_000,
};

const OWN_POLICY = 'farshoreRetryPolicy';
const DEFAULT_WAIT_AFTER_429_MS = 10_000;
/** Of one request: a connection that swallows what it is given must not take the whole operation's time. */
const ANSWER_WITHIN_MS = 60_000;

/** Replaces the retry policy of an SDK client's pipeline. */
export function useRetry(pipeline: Pipeline, retry: ArmRetry): void {
  pipeline.removePolicy({ phase: 'Retry' });
  pipeline.addPolicy(armRetryPolicy(retry), { phase: 'Retry' });
}

export function armRetryPolicy(retry: ArmRetry): PipelinePolicy {
  return {
    name: OWN_POLICY,
    async sendRequest(request, next) {
      const what = `${request.method} ${new URL(request.url).pathname}`;
      request.timeout = ANSWER_WITHIN_MS;
      for (let attempt = 1; ; attempt++) {
        const result = await next(request).catch((error: unknown) =>
          asRestError(error, { givenUp: request.abortSignal?.aborted === true }),
        );
        const wait = waitBefore(result, { attempt, retry });
        const last = attempt >= retry.attempts;
        if (wait === undefined || (last && !isTooMany(result))) return unwrap(result);
        if (last || wait > retry.longestWaitMs) {
          if (isTooMany(result)) throw throttled(what, wait);
          return unwrap(result);
        }
        await delay(wait, request.abortSignal);
      }
    },
  };
}

/** How long to wait before the next attempt; undefined when another is of no use. */
function waitBefore(
  result: PipelineResponse | RestError,
  at: { attempt: number; retry: ArmRetry },
): number | undefined {
  const backoff = at.retry.firstWaitMs * 2 ** (at.attempt - 1) * (0.75 + Math.random() / 2);
  if (result instanceof Error) return backoff;
  if (result.status === 429) return retryAfterMs(result) ?? DEFAULT_WAIT_AFTER_429_MS;
  if (result.status === 408 || [500, 502, 503, 504].includes(result.status))
    return Math.max(backoff, retryAfterMs(result) ?? 0);
  return undefined;
}

function retryAfterMs(response: PipelineResponse): number | undefined {
  const header = response.headers.get('retry-after');
  if (header === undefined) return undefined;
  const seconds = Number(header);
  if (Number.isFinite(seconds)) return Math.max(0, seconds * 1000);
  const date = Date.parse(header);
  return Number.isNaN(date) ? undefined : Math.max(0, date - Date.now());
}

function isTooMany(result: PipelineResponse | RestError): boolean {
  return !(result instanceof Error) && result.status === 429;
}

function asRestError(error: unknown, request: { givenUp: boolean }): RestError {
  if (error instanceof Error && error.name === 'AbortError' && !request.givenUp)
    return new RestError(`There was no answer within ${ANSWER_WITHIN_MS / 1000} s`, {
      code: 'ETIMEDOUT',
    });
  // Logging in runs inside the pipeline too; its failures are not for us to repeat.
  if (error instanceof RestError || (error instanceof Error && error.name === 'RestError'))
    return error as RestError;
  throw error;
}

function unwrap(result: PipelineResponse | RestError): PipelineResponse {
  if (result instanceof Error) throw result;
  return result;
}

function delay(ms: number, signal: AbortSignalLike | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const finish = () => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', aborted);
    };
    const aborted = () => {
      finish();
      reject(Object.assign(new Error('The wait was aborted.'), { name: 'AbortError' }));
    };
    const timer = setTimeout(() => {
      finish();
      resolve();
    }, ms);
    if (signal?.aborted === true) aborted();
    else signal?.addEventListener('abort', aborted);
  });
}

interface AbortSignalLike {
  readonly aborted: boolean;
  addEventListener(type: 'abort', listener: () => void): void;
  removeEventListener(type: 'abort', listener: () => void): void;
}
