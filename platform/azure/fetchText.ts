/** Fetches a text by a URL that carries its own authority (a SAS), with the cloud's trust. */
import {
  createDefaultHttpClient,
  createPipelineRequest,
  RestError,
} from '@azure/core-rest-pipeline';
import { type AzureCloud, trustOf } from './cloud.ts';

/** The last `keepLast` bytes at most; empty when there is nothing under the URL yet. */
export async function fetchText(
  url: string,
  options: { cloud: Pick<AzureCloud, 'ca'>; abortSignal: AbortSignal; keepLast: number },
): Promise<string> {
  const { tlsOptions } = trustOf(options.cloud);
  const request = createPipelineRequest({
    url,
    abortSignal: options.abortSignal,
    streamResponseStatusCodes: new Set([200]),
  });
  if (tlsOptions !== undefined) request.tlsSettings = tlsOptions;
  const response = await createDefaultHttpClient().sendRequest(request);
  if (response.status === 404) return '';
  if (response.status !== 200 || response.readableStreamBody === undefined)
    throw new RestError(`The answer was ${response.status}`, { statusCode: response.status });
  let kept = Buffer.alloc(0);
  for await (const chunk of response.readableStreamBody)
    kept = Buffer.concat([kept, Buffer.from(chunk)]).subarray(-options.keepLast);
  return kept.toString('utf8');
}
