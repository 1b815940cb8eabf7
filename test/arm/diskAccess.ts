/**
 * Serves a disk under the URL that beginGetAccess gave, the way Blob Storage serves a page blob: HEAD, ranged GET and Get Page
 * Ranges. The disk reads as the fixed VHD that Azure exports: its bytes, and the footer it came with.
 */
import { execFile } from 'node:child_process';
import { open } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { promisify } from 'node:util';
import type { EmulatorContext } from './context.ts';
import type { Resource } from './resources.ts';
import { FOOTER } from './vhdImport.ts';

const run = promisify(execFile);
const LARGEST_MAP = 256 << 20;
const SERVED_AT_ONCE = 1 << 20;

export async function serveDisk(
  context: EmulatorContext,
  request: IncomingMessage,
  response: ServerResponse,
  url: URL,
): Promise<void> {
  const uid = url.pathname.split('/')[2];
  const disk = context.resources.list().find((one) => one.uid === uid);
  if (disk === undefined || !allowed(disk, url)) {
    refuse(response, 403, 'AuthenticationFailed', 'Server failed to authenticate the request.');
    return;
  }
  if (url.searchParams.get('comp') === 'pagelist') return servePageList(context, response, disk);
  const size = Number(disk.properties.diskSizeBytes) + FOOTER;
  const common = {
    'x-ms-blob-type': 'PageBlob',
    'x-ms-version': '2021-12-02',
    etag: `"0x${disk.uid.toUpperCase()}"`,
    'last-modified': new Date(String(disk.properties.timeCreated)).toUTCString(),
    'accept-ranges': 'bytes',
    'content-type': 'application/octet-stream',
  };
  if (request.method === 'HEAD') {
    response.writeHead(200, { ...common, 'content-length': size });
    response.end();
    return;
  }
  if (request.method !== 'GET') {
    refuse(response, 405, 'UnsupportedHttpVerb', 'The resource is read only.');
    return;
  }
  const range = requestedRange(request, size);
  if (range === undefined || range.end < range.start) {
    refuse(response, 416, 'InvalidRange', 'The range specified is invalid for the current size.');
    return;
  }
  const length = range.end - range.start + 1;
  response.writeHead(range.partial ? 206 : 200, {
    ...common,
    'content-length': length,
    ...(range.partial ? { 'content-range': `bytes ${range.start}-${range.end}/${size}` } : {}),
  });
  await sendBytes(context, response, disk, { offset: range.start, length });
}

function allowed(disk: Resource, url: URL): boolean {
  return (
    disk.properties.diskState === 'ActiveSAS' &&
    disk.hidden.access !== undefined &&
    url.searchParams.get('sig') === disk.hidden.access &&
    Number(disk.hidden.accessUntil) > Date.now()
  );
}

function requestedRange(
  request: IncomingMessage,
  size: number,
): { start: number; end: number; partial: boolean } | undefined {
  const header = request.headers['x-ms-range'] ?? request.headers.range;
  if (header === undefined) return { start: 0, end: size - 1, partial: false };
  const match = /^bytes=(\d+)-(\d*)$/.exec(String(header));
  if (match === null) return undefined;
  const start = Number(match[1]);
  const end = match[2] === '' ? size - 1 : Math.min(Number(match[2]), size - 1);
  return { start, end, partial: true };
}

async function sendBytes(
  context: EmulatorContext,
  response: ServerResponse,
  disk: Resource,
  range: { offset: number; length: number },
): Promise<void> {
  const body = Number(disk.properties.diskSizeBytes);
  const footer = Buffer.from(String(disk.hidden.footer), 'base64');
  const file = await open(context.diskFile(disk), 'r');
  try {
    const end = range.offset + range.length;
    for (let offset = range.offset; offset < end && !response.destroyed; ) {
      const length = Math.min(SERVED_AT_ONCE, end - offset);
      const chunk = Buffer.alloc(length);
      if (offset < body) await file.read(chunk, 0, Math.min(length, body - offset), offset);
      if (offset + length > body)
        footer.copy(chunk, Math.max(0, body - offset), Math.max(0, offset - body));
      offset += length;
      if (!response.write(chunk))
        await new Promise<void>((resolve) => {
          response.once('drain', resolve);
          response.once('close', resolve);
        });
    }
    response.end();
  } finally {
    await file.close();
  }
}

/** The file's extents that hold data, and the footer, as Get Page Ranges lists them. */
async function servePageList(
  context: EmulatorContext,
  response: ServerResponse,
  disk: Resource,
): Promise<void> {
  const size = Number(disk.properties.diskSizeBytes);
  const { stdout } = await run(
    'qemu-img',
    ['map', '-U', '--output=json', '-f', 'raw', context.diskFile(disk)],
    { maxBuffer: LARGEST_MAP },
  );
  const extents = (JSON.parse(stdout) as { start: number; length: number; data: boolean }[])
    .filter((extent) => extent.data)
    .map((extent) => ({ start: extent.start, end: extent.start + extent.length - 1 }));
  const ranges = [...extents, { start: size, end: size + FOOTER - 1 }]
    .map(({ start, end }) => `<PageRange><Start>${start}</Start><End>${end}</End></PageRange>`)
    .join('');
  response.writeHead(200, {
    'content-type': 'application/xml',
    'x-ms-blob-content-length': size + FOOTER,
    'x-ms-version': '2021-12-02',
    etag: `"0x${disk.uid.toUpperCase()}"`,
    'last-modified': new Date(String(disk.properties.timeCreated)).toUTCString(),
  });
  response.end(`<?xml version="1.0" encoding="utf-8"?><PageList>${ranges}</PageList>`);
}

function refuse(response: ServerResponse, status: number, code: string, message: string): void {
  response.writeHead(status, { 'content-type': 'application/xml', 'x-ms-error-code': code });
  response.end(
    `<?xml version="1.0" encoding="utf-8"?><Error><Code>${code}</Code><Message>${message}</Message></Error>`,
  );
}
