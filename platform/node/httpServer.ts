/** A small HTTP server for metrics and health: GET of fixed paths, nothing else. */
import { createServer } from 'node:http';
import { errorMessage } from '../errors.ts';

export interface HttpAnswer {
  status: number;
  contentType: string;
  body: string;
}

export interface HttpServer {
  readonly port: number;
  close(): Promise<void>;
}

const REQUEST_TIMEOUT_MS = 10_000;
const CONNECTIONS_MAX = 64;

/** `routes`: path → answer. A route that throws answers 500. Rejects when the port can't be had. */
export async function listenHttp(options: {
  port: number;
  host?: string;
  routes: Record<string, () => Promise<HttpAnswer> | HttpAnswer>;
}): Promise<HttpServer> {
  const routes = new Map(Object.entries(options.routes));
  const server = createServer(
    { requestTimeout: REQUEST_TIMEOUT_MS, headersTimeout: REQUEST_TIMEOUT_MS },
    async (request, response) => {
      const route = routes.get((request.url ?? '').split('?')[0] ?? '');
      const answer = await answerTo(request.method, route);
      response.writeHead(answer.status, { 'content-type': answer.contentType });
      response.end(request.method === 'HEAD' ? undefined : answer.body);
    },
  );
  server.maxConnections = CONNECTIONS_MAX;
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen({ port: options.port, host: options.host }, resolve);
  });
  const address = server.address();
  return {
    port: typeof address === 'object' && address !== null ? address.port : options.port,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

async function answerTo(
  method: string | undefined,
  route: (() => Promise<HttpAnswer> | HttpAnswer) | undefined,
): Promise<HttpAnswer> {
  if (method !== 'GET' && method !== 'HEAD') return text(405, 'GET only\n');
  if (route === undefined) return text(404, 'not found\n');
  try {
    return await route();
  } catch (error) {
    return text(500, `${errorMessage(error)}\n`);
  }
}

function text(status: number, body: string): HttpAnswer {
  return { status, contentType: 'text/plain; charset=utf-8', body };
}
