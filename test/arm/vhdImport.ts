/**
 * Import of a page blob that is a fixed VHD: `createOption: Import`. Refuses what Azure refuses, in its words where they are
 * known. The body goes to a raw sparse file; the 512-byte footer is kept apart.
 */
import { type FileHandle, open } from 'node:fs/promises';
import { PageBlobClient, StorageSharedKeyCredential } from '@azure/storage-blob';
import type { StorageAccount } from './context.ts';
import { ArmFailure, invalid } from './failure.ts';

export const FOOTER = 512;
const MIB = 1 << 20;
const READ = 4 * MIB;
const PARALLEL = 4;

export interface ImportSource {
  blob: PageBlobClient;
  /** Of the disk, without the footer. */
  sizeBytes: number;
  footer: Buffer;
}

/** Checks what can be known before the import begins. Throws ArmFailure. */
export async function openImportSource(
  accounts: readonly StorageAccount[],
  asked: { sourceUri: string; storageAccountId: string | undefined; location: string },
): Promise<ImportSource> {
  const url = parseUri(asked.sourceUri);
  if (url.searchParams.has('snapshot'))
    throw invalid(
      'disk.creationData.sourceUri',
      `Blob snapshot ${asked.sourceUri} can't be imported: use a blob.`,
    );
  const account = accounts.find((one) => asked.sourceUri.startsWith(`${one.blobEndpoint}/`));
  if (account === undefined)
    throw invalid(
      'disk.creationData.sourceUri',
      `Blob ${asked.sourceUri} is in no storage account that the platform can reach.`,
    );
  if (asked.storageAccountId?.toLowerCase() !== account.id.toLowerCase())
    throw invalid(
      'disk.creationData.storageAccountId',
      `The storage account id '${asked.storageAccountId}' is not that of the account that holds ${asked.sourceUri}.`,
    );
  if (account.location !== asked.location)
    throw invalid(
      'disk.creationData.sourceUri',
      `Source blob and disk must be in the same region: '${account.location}' and '${asked.location}'.`,
    );
  url.search = '';
  const credential = new StorageSharedKeyCredential(account.accountName, account.accountKey);
  return describe(new PageBlobClient(url.toString(), credential));
}

async function describe(blob: PageBlobClient): Promise<ImportSource> {
  const properties = await blob.getProperties().catch((error: unknown) => {
    throw new ArmFailure(
      404,
      'NotFound',
      `The source blob ${blob.url} does not exist, or can't be read: ${error instanceof Error ? error.message : error}.`,
    );
  });
  const length = properties.contentLength ?? 0;
  if (properties.blobType !== 'PageBlob')
    throw invalid('disk.creationData.sourceUri', `Source blob ${blob.url} is not a page blob.`);
  const sizeBytes = length - FOOTER;
  if (sizeBytes <= 0 || sizeBytes % MIB !== 0)
    throw new ArmFailure(
      400,
      'InvalidVhdSize',
      `The VHD ${blob.url} has an unsupported virtual size of ${sizeBytes} bytes. The size must be a whole number (in MBs).`,
    );
  const footer = await blob.downloadToBuffer(sizeBytes, FOOTER);
  refuseBadFooter(blob.url, footer, sizeBytes);
  return { blob, sizeBytes, footer };
}

/** Footer: cookie at 0, current size at 48 (64 bits), disk type at 60 (2: fixed), checksum at 64 over the rest. Big-endian. */
function refuseBadFooter(url: string, footer: Buffer, sizeBytes: number): void {
  const refuse = (problem: string) => {
    throw new ArmFailure(400, 'InvalidVhd', `${url} is not a supported VHD: ${problem}.`);
  };
  if (footer.toString('latin1', 0, 8) !== 'conectix')
    refuse("the disk is expected to have cookie value 'conectix'");
  if (footer.readUInt32BE(60) !== 2) refuse('it is not of the fixed format');
  if (footer.readBigUInt64BE(48) !== BigInt(sizeBytes))
    refuse(`its footer says ${footer.readBigUInt64BE(48)} bytes, the blob holds ${sizeBytes}`);
  let sum = 0;
  for (const [index, byte] of footer.entries()) if (index < 64 || index >= 68) sum += byte;
  if (~sum >>> 0 !== footer.readUInt32BE(64)) refuse("the footer's checksum is wrong");
}

/** Copies the ranges that hold data. */
export async function importBody(source: ImportSource, file: string): Promise<void> {
  const target = await open(file, 'w');
  try {
    await target.truncate(source.sizeBytes);
    const chunks = await chunksOf(source);
    const workers = Array.from({ length: PARALLEL }, async () => {
      for (let chunk = chunks.pop(); chunk !== undefined; chunk = chunks.pop())
        await copyChunk(source, target, chunk);
    });
    await Promise.all(workers);
    await target.datasync();
  } finally {
    await target.close();
  }
}

interface Chunk {
  offset: number;
  length: number;
}

async function chunksOf(source: ImportSource): Promise<Chunk[]> {
  const chunks: Chunk[] = [];
  for await (const range of source.blob.listPageRanges()) {
    if (range.isClear) continue;
    const end = Math.min(range.end + 1, source.sizeBytes);
    for (let offset = range.start; offset < end; offset += READ)
      chunks.push({ offset, length: Math.min(READ, end - offset) });
  }
  return chunks;
}

async function copyChunk(source: ImportSource, target: FileHandle, chunk: Chunk): Promise<void> {
  const bytes = await source.blob.downloadToBuffer(chunk.offset, chunk.length);
  await target.write(bytes, 0, bytes.length, chunk.offset);
}

function parseUri(uri: string): URL {
  try {
    return new URL(uri);
  } catch {
    throw invalid('disk.creationData.sourceUri', `'${uri}' is not a URI.`);
  }
}
