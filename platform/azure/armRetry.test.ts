import {
  createHttpHeaders,
  createPipelineRequest,
  type PipelineResponse,
  RestError,
} from '@azure/core-rest-pipeline';
import { expect, test } from 'vitest';
import { armRetryPolicy } from './armRetry.ts';

const policy = armRetryPolicy({ attempts: 3, firstWaitMs: 1, longestWaitMs: 50 });
const url = 'https://example.invalid/subscriptions/s';

/** Runs the policy over answers given in order; a status, or an error to throw. */
async function run(
  answers: readonly (number | { status: number; retryAfter: string } | Error)[],
): Promise<{ calls: number; outcome: number | unknown }> {
  let calls = 0;
  const request = createPipelineRequest({ url });
  const next = async (): Promise<PipelineResponse> => {
    const answer = answers[calls++];
    if (answer === undefined) throw new Error('asked too often');
    if (answer instanceof Error) throw answer;
    const status = typeof answer === 'number' ? answer : answer.status;
    const headers = createHttpHeaders(
      typeof answer === 'number' ? {} : { 'retry-after': answer.retryAfter },
    );
    return { request, status, headers };
  };
  try {
    return { outcome: (await policy.sendRequest(request, next)).status, calls };
  } catch (error) {
    return { outcome: error, calls };
  }
}

test('an answer is an answer, also a refusal', async () => {
  expect(await run([200])).toEqual({ outcome: 200, calls: 1 });
  expect(await run([409])).toEqual({ outcome: 409, calls: 1 });
});

test('server errors and broken connections are tried again, a few times', async () => {
  const broken = new RestError('reset', { code: 'ECONNRESET' });
  expect(await run([503, broken, 200])).toEqual({ outcome: 200, calls: 3 });
  expect(await run([500, 502, 504])).toEqual({ outcome: 504, calls: 3 });
  expect(await run([broken, broken, broken])).toEqual({ outcome: broken, calls: 3 });
});

test('a short Retry-After is waited for, a long one is handed back with its time', async () => {
  expect(await run([{ status: 429, retryAfter: '0.01' }, 200])).toMatchObject({ outcome: 200 });
  const inTime = new Date(Date.now() - 1_000).toUTCString();
  expect(await run([{ status: 429, retryAfter: inTime }, 200])).toMatchObject({ outcome: 200 });
  expect(await run([{ status: 429, retryAfter: '1200' }])).toMatchObject({
    outcome: { code: 'Throttled', retryAfterMs: 1_200_000 },
    calls: 1,
  });
});

test('throttling that does not end is Throttled', async () => {
  const busy = { status: 429, retryAfter: '0' };
  expect(await run([busy, busy, busy])).toMatchObject({ outcome: { code: 'Throttled' }, calls: 3 });
});

test('what is no failure of the request itself is not repeated', async () => {
  const bug = new TypeError('a bug');
  expect(await run([bug])).toEqual({ outcome: bug, calls: 1 });
});
