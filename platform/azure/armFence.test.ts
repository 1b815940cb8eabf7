import {
  createHttpHeaders,
  createPipelineRequest,
  type HttpMethods,
} from '@azure/core-rest-pipeline';
import { expect, test } from 'vitest';
import { armFencePolicy } from './armFence.ts';

async function send(method: HttpMethods, mayChange: boolean): Promise<number | string> {
  const request = createPipelineRequest({ url: 'https://example.invalid/disks/d', method });
  const next = async () => ({ request, status: 200, headers: createHttpHeaders() });
  return await armFencePolicy(() => mayChange)
    .sendRequest(request, next)
    .then(
      ({ status }) => status,
      ({ code, message }) => `${code}: ${message}`,
    );
}

test('who may have been succeeded changes nothing, and may look', async () => {
  for (const method of ['PUT', 'POST', 'PATCH', 'DELETE'] as const) {
    expect(await send(method, true)).toBe(200);
    expect(await send(method, false)).toMatch(
      `NotLeading: Azure was not asked to ${method} /disks/d`,
    );
  }
  expect(await send('GET', false)).toBe(200);
});
