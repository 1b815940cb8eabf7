import { once } from 'node:events';
import { createServer, type IncomingMessage, request, type ServerResponse } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';

/** What happens to a request on its way. */
export type Fault =
  | 'pass'
  /** The server never sees it; the connection breaks. */
  | 'dropRequest'
  /** The server does it; the connection breaks before the answer. */
  | 'dropAnswer'
  /** The answer's head arrives and half of its body. */
  | 'cutAnswer'
  /** The server never sees it, and nothing is ever answered. */
  | 'hang'
  /** The proxy answers in the server's place. */
  | { status: number; code: string; retryAfterSeconds?: number }
  /** The connection breaks now; the server sees the request when the promise resolves. */
  | { deliverAfter: Promise<void> }
  /** The server does it; the answer waits for the promise. */
  | { afterEffect: () => Promise<void> };

export interface SeenRequest {
  method: string;
  /** Path and query. */
  url: string;
  headers: IncomingMessage['headers'];
}

/** Stands between a client and an HTTP server, and breaks what it is told to. */
export interface FaultProxy {
  port: number;
  /** `http://127.0.0.1:port`, in place of the server's origin. */
  origin: string;
  /** Asked for each request, in order. */
  decide: (request: SeenRequest) => Fault;
  readonly requests: SeenRequest[];
  /** Bytes per second that requests' bodies pass at, all together; undefined: as fast as they come. */
  bytesPerSecond: number | undefined;
  /** Resolves when every late delivery was made. */
  delivered(): Promise<void>;
  stop(): Promise<void>;
}

export async function startFaultProxy(options: { target: string }): Promise<FaultProxy> {
  const target = new URL(options.target);
  const late = new Set<Promise<void>>();
  let pacedUntil = 0;
  const pace = async (bytes: number) => {
    if (proxy.bytesPerSecond === undefined) return;
    pacedUntil = Math.max(pacedUntil, performance.now()) + (bytes / proxy.bytesPerSecond) * 1000;
    await delay(Math.max(0, pacedUntil - performance.now()));
  };
  const server = createServer((incoming, outgoing) => {
    void serve(incoming, outgoing).catch(() => outgoing.destroy());
  });
  const serve = async (incoming: IncomingMessage, outgoing: ServerResponse) => {
    const seen = {
      method: incoming.method ?? '',
      url: incoming.url ?? '',
      headers: incoming.headers,
    };
    proxy.requests.push(seen);
    const fault = proxy.decide(seen);
    if (fault === 'hang') return;
    const body = await bodyOf(incoming, pace);
    if (fault === 'dropRequest') outgoing.destroy();
    else if (typeof fault === 'object' && 'status' in fault) refuse(outgoing, fault);
    else if (typeof fault === 'object' && 'afterEffect' in fault) {
      const held = await forward(target, seen, body);
      await fault.afterEffect();
      answer(outgoing, held, 'pass');
    } else if (typeof fault === 'object') {
      outgoing.destroy();
      const delivery = fault.deliverAfter.then(async () => {
        await forward(target, seen, body);
      });
      late.add(delivery);
      await delivery;
    } else answer(outgoing, await forward(target, seen, body), fault);
  };
  const proxy: FaultProxy = {
    port: 0,
    origin: '',
    decide: () => 'pass',
    requests: [],
    bytesPerSecond: undefined,
    delivered: async () => {
      await Promise.allSettled(late);
    },
    stop: async () => {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  proxy.port = address.port;
  proxy.origin = `http://127.0.0.1:${address.port}`;
  return proxy;
}

/** The same account through the proxy. */
export function throughProxy(connectionString: string, proxy: FaultProxy): string {
  return connectionString.replace(/http:\/\/[^/;]+/, proxy.origin);
}

interface Answer {
  status: number;
  headers: IncomingMessage['headers'];
  body: Buffer;
}

async function forward(target: URL, seen: SeenRequest, body: Buffer): Promise<Answer> {
  const outgoing = request({
    host: target.hostname,
    port: target.port,
    method: seen.method,
    path: seen.url,
    headers: seen.headers,
    agent: false,
  });
  outgoing.end(body);
  const [response] = (await once(outgoing, 'response')) as [IncomingMessage];
  return {
    status: response.statusCode ?? 502,
    headers: response.headers,
    body: await bodyOf(response),
  };
}

function answer(outgoing: ServerResponse, from: Answer, fault: Fault): void {
  if (fault === 'dropAnswer') {
    outgoing.destroy();
    return;
  }
  outgoing.writeHead(from.status, from.headers);
  if (fault !== 'cutAnswer') {
    outgoing.end(from.body);
    return;
  }
  outgoing.write(from.body.subarray(0, from.body.length / 2), () => outgoing.destroy());
}

function refuse(
  outgoing: ServerResponse,
  fault: { status: number; code: string; retryAfterSeconds?: number },
): void {
  outgoing.writeHead(fault.status, {
    'content-type': 'application/xml',
    'x-ms-error-code': fault.code,
    ...(fault.retryAfterSeconds === undefined
      ? {}
      : { 'retry-after': String(fault.retryAfterSeconds) }),
  });
  outgoing.end(
    `<?xml version="1.0" encoding="utf-8"?><Error><Code>${fault.code}</Code><Message>planned</Message></Error>`,
  );
}

async function bodyOf(
  message: IncomingMessage,
  pace?: (bytes: number) => Promise<void>,
): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of message) {
    chunks.push(chunk);
    await pace?.(chunk.length);
  }
  return Buffer.concat(chunks);
}
