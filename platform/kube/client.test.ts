import http from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { KubeConfig } from '@kubernetes/client-node';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type KubeObject, kubeTypes, type WatchEvent } from '../kubernetes.ts';
import { HttpKubeClient } from './client.ts';
import { type KubeLimits, KubeTransport } from './transport.ts';

type Answer = (request: http.IncomingMessage, response: http.ServerResponse, body: string) => void;

let server: http.Server;
let answers: Answer[];
let requests: { method: string; url: string; type: string | undefined; body: string }[];
let client: HttpKubeClient;
const sockets = new Set<Socket>();

beforeEach(async () => {
  answers = [];
  requests = [];
  server = http.createServer(async (request, response) => {
    let body = '';
    for await (const chunk of request) body += chunk;
    const { method = '', url = '', headers } = request;
    requests.push({ method, url, type: headers['content-type'], body });
    const answer = answers.shift();
    if (answer === undefined) response.writeHead(500).end('unscripted');
    else answer(request, response, body);
  });
  server.on('connection', (socket) => sockets.add(socket));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  client = connect();
});

afterEach(async () => {
  client.close();
  for (const socket of sockets) socket.destroy();
  sockets.clear();
  await new Promise((resolve) => server.close(resolve));
});

function connect(limits: Partial<KubeLimits> = {}): HttpKubeClient {
  const config = new KubeConfig();
  config.loadFromOptions({
    clusters: [
      {
        name: 'c',
        server: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
        skipTLSVerify: true,
      },
    ],
    users: [{ name: 'u', token: 'secret-token' }],
    contexts: [{ name: 'x', cluster: 'c', user: 'u' }],
    currentContext: 'x',
  });
  return new HttpKubeClient(new KubeTransport(config, limits));
}

const secret = (name: string): KubeObject => ({
  apiVersion: 'v1',
  kind: 'Secret',
  metadata: { namespace: 'n', name, resourceVersion: '7' },
});

const json =
  (status: number, body: unknown, headers: Record<string, string> = {}): Answer =>
  (_, response) => {
    response.writeHead(status, { 'content-type': 'application/json', ...headers });
    response.end(JSON.stringify(body));
  };

const refusal = (code: number, reason: string, details?: object): Answer =>
  json(code, { kind: 'Status', code, reason, message: `said ${reason}`, details });

async function watchAll(signal = new AbortController().signal): Promise<WatchEvent<KubeObject>[]> {
  const events: WatchEvent<KubeObject>[] = [];
  const stream = client.watch(kubeTypes.secret, {
    namespace: 'n',
    resourceVersion: '5',
    timeoutSeconds: 10,
    signal,
  });
  for await (const event of stream) events.push(event);
  return events;
}

const line = (type: string, object: unknown) => `${JSON.stringify({ type, object })}\n`;

describe('requests', () => {
  it('carry the identity of the kubeconfig, and the paths that the API serves', async () => {
    let authorization: string | undefined;
    answers.push((request, response, body) => {
      authorization = request.headers.authorization;
      json(200, secret('a'))(request, response, body);
    });
    await client.get(kubeTypes.secret, { namespace: 'n', name: 'a' });
    expect(authorization).toBe('Bearer secret-token');
    answers.push(
      json(200, {
        metadata: { resourceVersion: '9', continue: 'more' },
        items: [{ metadata: { name: 'a' } }],
      }),
    );
    const page = await client.list(kubeTypes.statefulSet, { limit: 2, labelSelector: 'a=b' });
    expect(page).toEqual({
      items: [{ apiVersion: 'apps/v1', kind: 'StatefulSet', metadata: { name: 'a' } }],
      resourceVersion: '9',
      continue: 'more',
    });
    expect(requests.map((request) => request.url)).toEqual([
      '/api/v1/namespaces/n/secrets/a',
      '/apis/apps/v1/statefulsets?labelSelector=a%3Db&limit=2',
    ]);
  });

  it('apply as one field manager, by force unless told otherwise', async () => {
    answers.push(json(200, secret('a')), json(200, secret('a')));
    await client.apply(kubeTypes.secret, secret('a'));
    await client.applyStatus(kubeTypes.secret, secret('a'), { force: false });
    expect(requests.map(({ method, url, type }) => ({ method, url, type }))).toEqual([
      {
        method: 'PATCH',
        url: '/api/v1/namespaces/n/secrets/a?fieldManager=farshore&force=true',
        type: 'application/apply-patch+yaml',
      },
      {
        method: 'PATCH',
        url: '/api/v1/namespaces/n/secrets/a/status?fieldManager=farshore&force=false',
        type: 'application/apply-patch+yaml',
      },
    ]);
  });

  it('to delete name what must still be so', async () => {
    answers.push(json(200, { kind: 'Status' }), refusal(404, 'NotFound', { name: 'a' }));
    expect(await client.remove(kubeTypes.secret, { namespace: 'n', name: 'a' }, { uid: 'u' })).toBe(
      'removed',
    );
    expect(JSON.parse(requests[0]?.body ?? '')).toMatchObject({ preconditions: { uid: 'u' } });
    expect(await client.remove(kubeTypes.secret, { namespace: 'n', name: 'a' })).toBe('missing');
  });

  it('a name can’t lead out of its place', async () => {
    answers.push(json(200, secret('a')));
    await client.get(kubeTypes.secret, { namespace: 'n', name: '../../pods' });
    expect(requests[0]?.url).toBe('/api/v1/namespaces/n/secrets/..%2F..%2Fpods');
    await expect(
      client.get(kubeTypes.secret, { namespace: 'n', name: '..' }),
    ).rejects.toMatchObject({ code: 'Invalid' });
    expect(requests.length).toBe(1);
  });
});

describe('answers', () => {
  it('a missing object is undefined; a kind that is not installed is an error', async () => {
    answers.push(refusal(404, 'NotFound', { name: 'a' }));
    expect(await client.get(kubeTypes.secret, { namespace: 'n', name: 'a' })).toBeUndefined();
    answers.push((_, response) => response.writeHead(404).end('404 page not found'));
    await expect(client.get(kubeTypes.secret, { namespace: 'n', name: 'a' })).rejects.toMatchObject(
      {
        code: 'NotServed',
      },
    );
  });

  it.each([
    [409, 'AlreadyExists', 'AlreadyExists'],
    [409, 'Conflict', 'Conflict'],
    [410, 'Expired', 'Gone'],
    [422, 'Invalid', 'Invalid'],
    [400, 'BadRequest', 'Invalid'],
    [401, 'Unauthorized', 'Unauthorized'],
    [403, 'Forbidden', 'Forbidden'],
    [429, 'TooManyRequests', 'TooManyRequests'],
    [500, 'InternalError', 'ServerError'],
    [504, 'Timeout', 'ServerError'],
  ])('%i %s is %s, with the server’s words', async (status, reason, code) => {
    answers.push(refusal(status, reason, { retryAfterSeconds: 3 }));
    await expect(client.create(kubeTypes.secret, secret('a'))).rejects.toMatchObject({
      code,
      status,
      message: `Kubernetes refused to create secrets n/a: said ${reason}`,
      retryAfterMs: 3_000,
    });
  });

  it('a gateway’s page is told as such', async () => {
    answers.push((_, response) =>
      response.writeHead(503, { 'retry-after': '7' }).end('<html>try later</html>'),
    );
    await expect(client.create(kubeTypes.secret, secret('a'))).rejects.toMatchObject({
      code: 'TooManyRequests',
      retryAfterMs: 7_000,
      message: expect.stringContaining('try later'),
    });
  });

  it('that are no JSON, no object, or no list are refused', async () => {
    const name = { namespace: 'n', name: 'a' };
    answers.push(
      (_, response) => response.end('{"metadata":'),
      json(200, { metadata: {} }),
      json(200, [1]),
    );
    for (let i = 0; i < 3; i++)
      await expect(client.get(kubeTypes.secret, name)).rejects.toMatchObject({ code: 'BadAnswer' });
    answers.push(json(200, { metadata: {}, items: 'none' }));
    await expect(client.list(kubeTypes.secret, { limit: 0 })).rejects.toMatchObject({
      code: 'BadAnswer',
    });
  });

  it('that are too large are not held', async () => {
    client.close();
    client = connect({ maxAnswerBytes: 1_000 });
    answers.push(json(200, { metadata: { name: 'x'.repeat(2_000) } }));
    await expect(client.get(kubeTypes.secret, { namespace: 'n', name: 'a' })).rejects.toMatchObject(
      {
        code: 'BadAnswer',
        message: expect.stringContaining('more than 1000 bytes'),
      },
    );
  });

  it('that never come end in an error that says where we asked', async () => {
    client.close();
    client = connect({ requestTimeoutMs: 50 });
    answers.push(() => undefined);
    await expect(client.create(kubeTypes.secret, secret('a'))).rejects.toMatchObject({
      code: 'Unreachable',
      message: expect.stringContaining(client.url),
    });
  });

  it('on a kept connection that broke are asked for again, if nothing can happen twice', async () => {
    const cut: Answer = (request) => request.socket.destroy();
    answers.push(json(200, secret('a')), cut, json(200, secret('b')));
    await client.get(kubeTypes.secret, { namespace: 'n', name: 'a' });
    const second = await client.get(kubeTypes.secret, { namespace: 'n', name: 'b' });
    expect(second?.metadata.name).toBe('b');
    answers.push(cut, json(200, secret('c')));
    await expect(client.create(kubeTypes.secret, secret('c'))).rejects.toMatchObject({
      code: 'Unreachable',
    });
    expect(requests.filter((request) => request.method === 'POST').length).toBe(1);
  });
});

describe('a watch', () => {
  it('asks for bookmarks, and gives every event whatever the pieces it came in', async () => {
    const text =
      line('ADDED', secret('a')) +
      line('MODIFIED', { ...secret('b'), data: { text: 'häß\nlich' } }) +
      line('BOOKMARK', { metadata: { resourceVersion: '99' } }) +
      line('DELETED', secret('a'));
    const bytes = Buffer.from(text);
    for (const size of [1, 7, 64, bytes.length]) {
      answers.push(async (_, response) => {
        for (let at = 0; at < bytes.length; at += size) {
          response.write(bytes.subarray(at, at + size));
          if (size > 1 || at % 50 === 0) await new Promise((resolve) => setImmediate(resolve));
        }
        response.end();
      });
      const events = await watchAll();
      expect(events.map((event) => event.type)).toEqual([
        'added',
        'modified',
        'bookmark',
        'deleted',
      ]);
      expect(events[1]).toMatchObject({ object: { data: { text: 'häß\nlich' } } });
      expect(events[2]).toEqual({ type: 'bookmark', resourceVersion: '99' });
    }
    expect(requests[0]?.url).toBe(
      '/api/v1/namespaces/n/secrets?watch=true&allowWatchBookmarks=true&resourceVersion=5&timeoutSeconds=10',
    );
  });

  it.each([
    [
      'says 410 in an event',
      line('ERROR', { kind: 'Status', code: 410, reason: 'Expired', message: 'old' }),
      'Gone',
    ],
    [
      'says 500 in an event',
      line('ERROR', { kind: 'Status', code: 500, message: 'x' }),
      'ServerError',
    ],
    ['sends an event that is no JSON', 'nonsense\n', 'BadAnswer'],
    ['sends an event without an object', '{"type":"ADDED"}\n', 'BadAnswer'],
    ['is cut inside an event', '{"type":"ADD', 'Unreachable'],
  ])('that %s ends with a code', async (_, text, code) => {
    answers.push((_request, response) => response.end(line('ADDED', secret('a')) + text));
    await expect(watchAll()).rejects.toMatchObject({ code });
  });

  it('that is refused ends with the server’s code', async () => {
    answers.push(refusal(410, 'Expired'));
    await expect(watchAll()).rejects.toMatchObject({ code: 'Gone' });
    answers.push(refusal(403, 'Forbidden'));
    await expect(watchAll()).rejects.toMatchObject({ code: 'Forbidden' });
  });

  it('whose connection breaks ends as unreachable', async () => {
    answers.push((request, response) => {
      response.write(line('ADDED', secret('a')));
      setImmediate(() => request.socket.destroy());
    });
    await expect(watchAll()).rejects.toMatchObject({ code: 'Unreachable' });
  });

  it('that falls silent ends as unreachable, however long it spoke before', async () => {
    client.close();
    client = connect({ watchSilenceMs: 150 });
    let lines = 0;
    answers.push((_, response) => {
      const timer = setInterval(() => {
        lines += 1;
        response.write(line('ADDED', secret('a')));
        if (lines === 5) clearInterval(timer);
      }, 60);
    });
    await expect(watchAll()).rejects.toMatchObject({
      code: 'Unreachable',
      message: expect.stringContaining('silent for 150 ms'),
    });
    expect(lines).toBe(5);
  });

  it('does not hold an event without end', async () => {
    client.close();
    client = connect({ maxLineBytes: 1_000 });
    answers.push((_, response) => {
      response.end(`{"type":"${'x'.repeat(100_000)}`);
    });
    await expect(watchAll()).rejects.toMatchObject({ code: 'BadAnswer' });
  });

  it('ends with the signal’s reason when told to', async () => {
    const stop = new AbortController();
    const reason = new Error('enough');
    answers.push((_, response) => {
      response.write(line('ADDED', secret('a')));
      setImmediate(() => stop.abort(reason));
    });
    await expect(watchAll(stop.signal)).rejects.toBe(reason);
  });
});
