/**
 * A blob service that takes and forgets: nullStore.ts, a process of its own, prints its port and ends when its stdin does.
 *
 * It speaks Put Blob (with conditions), Get Blob, Get Blob Properties, List Blobs and Delete Blob, checks no signature, and keeps documents
 * whole in memory; of a journal's segments it keeps the header alone. So it costs what receiving the bytes costs.
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** More than any segment's header, and than what a reader of one asks for. */
const SEGMENT_KEPT = 64 << 10;
const DOCUMENT_MAX = 8 << 20;

interface Kept {
  /** The first bytes of a segment, all of anything else. */
  bytes: Buffer;
  size: number;
  etag: string;
  lastModified: string;
}

const blobs = new Map<string, Kept>();
let version = 0;

const server = createServer((request, response) => {
  answer(request, response).catch((error: unknown) => {
    response.destroy(error instanceof Error ? error : new Error(String(error)));
  });
});
server.keepAliveTimeout = 60_000;
server.listen(0, '127.0.0.1', () => {
  process.stdout.write(`${(server.address() as AddressInfo).port}\n`);
});
process.stdin.resume().once('end', () => process.exit());

async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const url = new URL(request.url ?? '/', 'http://store');
  // /account/container/blob…
  const name = decodeURIComponent(url.pathname.split('/').slice(3).join('/'));
  const isSegment = name.endsWith('.seg');
  const body = await receive(request, isSegment ? SEGMENT_KEPT : DOCUMENT_MAX);
  if (url.searchParams.get('comp') === 'list') list(response, url.searchParams.get('prefix') ?? '');
  else if (name === '') end(response, 201);
  else if (request.method === 'PUT') put(request, response, { name, ...body });
  else if (!blobs.has(name)) fail(response, 404, 'BlobNotFound');
  else if (request.method === 'DELETE') {
    blobs.delete(name);
    end(response, 202);
  } else give(request, response, blobs.get(name) as Kept);
}

/** Reads the body to its end, and keeps the first `keep` bytes of it. */
async function receive(
  request: IncomingMessage,
  keep: number,
): Promise<{ bytes: Buffer; size: number }> {
  const kept: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    // A copy: a view would keep the whole chunk.
    if (size < keep) kept.push(Buffer.from(chunk.subarray(0, keep - size)));
    size += chunk.length;
  }
  return { bytes: Buffer.concat(kept), size };
}

function put(
  request: IncomingMessage,
  response: ServerResponse,
  blob: { name: string; bytes: Buffer; size: number },
): void {
  const present = blobs.get(blob.name);
  const { 'if-match': ifMatch, 'if-none-match': ifNoneMatch } = request.headers;
  if (ifNoneMatch === '*' && present !== undefined) fail(response, 409, 'BlobAlreadyExists');
  else if (ifMatch !== undefined && ifMatch !== present?.etag)
    fail(response, 412, 'ConditionNotMet');
  else {
    version += 1;
    const etag = `"0x${version.toString(16).padStart(16, '0')}"`;
    const lastModified = new Date().toUTCString();
    blobs.set(blob.name, { bytes: blob.bytes, size: blob.size, etag, lastModified });
    end(response, 201, { etag, 'last-modified': lastModified });
  }
}

function give(request: IncomingMessage, response: ServerResponse, blob: Kept): void {
  const asked = request.headers['x-ms-range'] ?? request.headers.range;
  const [, from = '0', to = ''] = /^bytes=(\d+)-(\d*)$/.exec(String(asked ?? 'bytes=0-')) ?? [];
  const start = Number(from);
  const stop = to === '' ? blob.size : Math.min(blob.size, Number(to) + 1);
  const headers = {
    etag: blob.etag,
    'last-modified': blob.lastModified,
    'x-ms-blob-type': 'BlockBlob',
    'content-type': 'application/octet-stream',
  };
  if (request.method === 'HEAD') end(response, 200, { ...headers, 'content-length': blob.size });
  else if (start >= blob.size) fail(response, 416, 'InvalidRange');
  else if (stop > blob.bytes.length) fail(response, 400, 'ForgottenByTheNullStore');
  else {
    const length = { 'content-length': stop - start };
    const range = { 'content-range': `bytes ${start}-${stop - 1}/${blob.size}` };
    const isPart = asked !== undefined;
    end(
      response,
      isPart ? 206 : 200,
      { ...headers, ...length, ...(isPart ? range : {}) },
      blob.bytes.subarray(start, stop),
    );
  }
}

function list(response: ServerResponse, prefix: string): void {
  const names = [...blobs.keys()].filter((name) => name.startsWith(prefix)).sort();
  const items = names.map((name) => {
    const { size, etag, lastModified } = blobs.get(name) as Kept;
    const properties = `<Last-Modified>${lastModified}</Last-Modified><Etag>${etag.slice(1, -1)}</Etag><Content-Length>${size}</Content-Length><BlobType>BlockBlob</BlobType>`;
    return `<Blob><Name>${name}</Name><Properties>${properties}</Properties></Blob>`;
  });
  const xml = `<?xml version="1.0" encoding="utf-8"?><EnumerationResults><Blobs>${items.join('')}</Blobs><NextMarker /></EnumerationResults>`;
  end(response, 200, { 'content-type': 'application/xml' }, xml);
}

function fail(response: ServerResponse, status: number, code: string): void {
  const xml = `<?xml version="1.0" encoding="utf-8"?><Error><Code>${code}</Code><Message>${code}</Message></Error>`;
  end(response, status, { 'x-ms-error-code': code, 'content-type': 'application/xml' }, xml);
}

function end(
  response: ServerResponse,
  status: number,
  headers: Record<string, string | number> = {},
  body?: string | Buffer,
): void {
  response.writeHead(status, { 'x-ms-version': '2025-01-05', ...headers });
  response.end(body);
}
