import { closeSync, openSync, readSync } from 'node:fs';
import { BlobServiceClient } from '@azure/storage-blob';
import type { BlobService } from '../servers/azurite.ts';

const PUT_BYTES = 64 << 20;

/** Seconds for the first bytes of an image in Put Blobs of 64 MiB, one after the other. Reading them is not counted. */
export async function putBlobs(
  azurite: BlobService,
  options: { container: string; image: string; bytes: number },
): Promise<number> {
  const { image, bytes } = options;
  const service = BlobServiceClient.fromConnectionString(azurite.connectionString);
  const container = service.getContainerClient(options.container);
  await container.create();
  const file = openSync(image, 'r');
  const buffer = Buffer.allocUnsafeSlow(PUT_BYTES);
  let milliseconds = 0;
  try {
    for (let offset = 0; offset < bytes; offset += PUT_BYTES) {
      const length = readSync(file, buffer, 0, Math.min(PUT_BYTES, bytes - offset), offset);
      const started = performance.now();
      await container.getBlockBlobClient(`${offset}`).upload(buffer.subarray(0, length), length);
      milliseconds += performance.now() - started;
    }
  } finally {
    closeSync(file);
  }
  return milliseconds / 1000;
}
