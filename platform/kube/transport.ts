/**
 * HTTPS to the API server, with the identity that a kubeconfig or a pod's service account gives.
 *
 * @kubernetes/client-node reads the configuration and signs in; requests and streams are our own, because its watch ends after
 * 30 s and swallows lines that it can't parse.
 */
import http from 'node:http';
import https from 'node:https';
import { KubeConfig } from '@kubernetes/client-node';
import { FarshoreError } from '../errors.ts';
import { KubeError } from '../kubernetes.ts';
import { errorOfAnswer, errorOfSilence } from './errors.ts';

export interface KubeLimits {
  /** For an answer that is not a watch, from the first byte sent to the last received. */
  requestTimeoutMs: number;
  /** A live watch says something (a bookmark) about once a minute. */
  watchSilenceMs: number;
  maxAnswerBytes: number;
  /** One event of a watch: an object is at most 3 MiB, and JSON may double it. */
  maxLineBytes: number;
}

const defaultLimits: KubeLimits = {
  requestTimeoutMs: 30_000,
  watchSilenceMs: 150_000,
  maxAnswerBytes: 64 << 20,
  maxLineBytes: 8 << 20,
};

export interface KubeRequest {
  /** Verb, kind and object, for messages: "apply the status of failovers a/b". */
  what: string;
  method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  path: string;
  query?: Record<string, string | undefined>;
  body?: unknown;
  contentType?: string;
  signal?: AbortSignal;
}

export class KubeTransport {
  readonly url: string;
  readonly #config: KubeConfig;
  readonly #limits: KubeLimits;
  readonly #agent: http.Agent | undefined;

  constructor(config: KubeConfig, limits: Partial<KubeLimits> = {}) {
    const cluster = config.getCurrentCluster();
    if (cluster === null)
      throw new FarshoreError(
        'KubeconfigInvalid',
        'The Kubernetes configuration names no current cluster. Set KUBECONFIG, or run with a service account.',
      );
    this.url = cluster.server.replace(/\/+$/, '');
    this.#config = config;
    this.#limits = { ...defaultLimits, ...limits };
    // Through a proxy, the library's own agent knows the way; else ours keeps connections open.
    const agentOptions = { keepAlive: true, keepAliveMsecs: 15_000, maxFreeSockets: 8 };
    if (cluster.proxyUrl === undefined)
      this.#agent = this.url.startsWith('http:')
        ? new http.Agent(agentOptions)
        : new https.Agent(agentOptions);
  }

  /** The parsed JSON of a successful answer. Throws KubeError. */
  async request(request: KubeRequest): Promise<unknown> {
    const deadline = AbortSignal.timeout(this.#limits.requestTimeoutMs);
    const signal =
      request.signal === undefined ? deadline : AbortSignal.any([deadline, request.signal]);
    try {
      const response = await this.#open(request, signal);
      const bytes = await this.#collect(request, response);
      return this.#parse(request, response, bytes);
    } catch (error) {
      throw this.#explained(request, error);
    }
  }

  /** The lines of a successful answer, until the server ends it. Throws KubeError. */
  async *lines(request: KubeRequest & { signal: AbortSignal }): AsyncGenerator<string, void, void> {
    const silence = new AbortController();
    const signal = AbortSignal.any([request.signal, silence.signal]);
    const timer = setTimeout(
      () => silence.abort(new Error(`silent for ${this.#limits.watchSilenceMs} ms`)),
      this.#limits.watchSilenceMs,
    );
    let response: http.IncomingMessage | undefined;
    try {
      response = await this.#open(request, signal);
      if (response.statusCode !== 200)
        this.#parse(request, response, await this.#collect(request, response));
      for await (const line of this.#split(request, response, () => timer.refresh())) yield line;
    } catch (error) {
      throw this.#explained(request, silence.signal.aborted ? silence.signal.reason : error);
    } finally {
      clearTimeout(timer);
      response?.destroy();
    }
  }

  close(): void {
    this.#agent?.destroy();
  }

  async #open(request: KubeRequest, signal: AbortSignal): Promise<http.IncomingMessage> {
    try {
      return await this.#send(request, signal);
    } catch (error) {
      // A kept connection that the server closed in the same moment: nothing of a read is lost by asking again.
      if (request.method === 'GET' && error instanceof StaleConnection && !signal.aborted)
        return await this.#send(request, signal);
      throw error;
    }
  }

  async #send(request: KubeRequest, signal: AbortSignal): Promise<http.IncomingMessage> {
    const url = new URL(this.url + request.path);
    for (const [key, value] of Object.entries(request.query ?? {}))
      if (value !== undefined) url.searchParams.set(key, value);
    const body = request.body === undefined ? undefined : JSON.stringify(request.body);
    const options: https.RequestOptions = { method: request.method, headers: {}, signal };
    await this.#config.applyToHTTPSOptions(options);
    if (this.#agent !== undefined) options.agent = this.#agent;
    options.headers = {
      ...(options.headers as http.OutgoingHttpHeaders),
      accept: 'application/json',
      'user-agent': 'farshore',
      ...(body === undefined
        ? {}
        : {
            'content-type': request.contentType ?? 'application/json',
            'content-length': String(Buffer.byteLength(body)),
          }),
    };
    return await new Promise((resolve, reject) => {
      const outgoing = (url.protocol === 'http:' ? http : https).request(url, options, resolve);
      outgoing.on('socket', (socket) => socket.setKeepAlive(true, 15_000));
      outgoing.on('error', (error) =>
        reject(
          outgoing.reusedSocket ? new StaleConnection(error.message, { cause: error }) : error,
        ),
      );
      outgoing.end(body);
    });
  }

  async #collect(request: KubeRequest, response: http.IncomingMessage): Promise<Buffer> {
    const chunks: Buffer[] = [];
    let size = 0;
    for await (const chunk of response) {
      size += chunk.length;
      if (size > this.#limits.maxAnswerBytes)
        throw new KubeError(
          'BadAnswer',
          `Kubernetes answered with more than ${this.#limits.maxAnswerBytes} bytes when asked to ${request.what}.`,
        );
      chunks.push(chunk);
    }
    return Buffer.concat(chunks);
  }

  #parse(request: KubeRequest, response: http.IncomingMessage, bytes: Buffer): unknown {
    const text = bytes.toString('utf8');
    const status = response.statusCode ?? 0;
    let body: unknown;
    try {
      body = JSON.parse(text);
    } catch (cause) {
      if (status >= 200 && status < 300)
        throw new KubeError(
          'BadAnswer',
          `Kubernetes answered with something that is not JSON when asked to ${request.what}.`,
          { status, cause },
        );
    }
    if (status >= 200 && status < 300) return body;
    throw errorOfAnswer(request.what, {
      status,
      retryAfter: response.headers['retry-after'],
      body,
      text,
    });
  }

  async *#split(
    request: KubeRequest,
    response: http.IncomingMessage,
    heard: () => void,
  ): AsyncGenerator<string, void, void> {
    let rest: Buffer[] = [];
    let restBytes = 0;
    for await (const chunk of response as AsyncIterable<Buffer>) {
      heard();
      let start = 0;
      for (let end = chunk.indexOf(10); end !== -1; end = chunk.indexOf(10, start)) {
        const line = Buffer.concat([...rest, chunk.subarray(start, end)]).toString('utf8');
        rest = [];
        restBytes = 0;
        start = end + 1;
        if (line !== '') yield line;
      }
      if (start === chunk.length) continue;
      rest.push(chunk.subarray(start));
      restBytes += chunk.length - start;
      if (restBytes > this.#limits.maxLineBytes)
        throw new KubeError(
          'BadAnswer',
          `Kubernetes sent an event of more than ${this.#limits.maxLineBytes} bytes when asked to ${request.what}.`,
        );
    }
    if (restBytes > 0) throw new Error('the stream was cut inside an event');
  }

  #explained(request: KubeRequest, error: unknown): unknown {
    if (error instanceof KubeError) return error;
    if (request.signal?.aborted) return request.signal.reason;
    const cause = error instanceof StaleConnection ? error.cause : error;
    return errorOfSilence(request.what, this.url, cause);
  }
}

/** A connection that was kept from an earlier request and broke before this one was answered. */
class StaleConnection extends Error {}

/** From a file, or as kubectl finds it: $KUBECONFIG, ~/.kube/config, a pod's service account. */
export function loadKubeConfig(options: { file?: string; context?: string } = {}): KubeConfig {
  const config = new KubeConfig();
  if (options.file === undefined) config.loadFromDefault();
  else config.loadFromFile(options.file);
  if (options.context !== undefined) config.setCurrentContext(options.context);
  return config;
}
