import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import path from 'node:path';
import type { BlobService } from './azurite.ts';

const PROGRAM = path.resolve(import.meta.dirname, 'nullStore.ts');
const ACCOUNT = 'farshore';

export interface NullStore extends BlobService {
  pid: number;
  stop(): Promise<void>;
}

/** nullStore.ts as a process of its own. */
export async function startNullStore(options: { ownSession?: boolean } = {}): Promise<NullStore> {
  const child = spawn(process.execPath, [PROGRAM], {
    stdio: ['pipe', 'pipe', 'inherit'],
    detached: options.ownSession ?? false,
  });
  const exited = once(child, 'exit');
  const port = await Promise.race([
    once(child.stdout, 'data').then(([line]) => Number(String(line))),
    exited.then(([code]) => {
      throw new Error(`the null store ended with ${code} before it listened`);
    }),
  ]);
  const blobEndpoint = `http://127.0.0.1:${port}/${ACCOUNT}`;
  return {
    blobEndpoint,
    connectionString: `DefaultEndpointsProtocol=http;AccountName=${ACCOUNT};AccountKey=${randomBytes(64).toString('base64')};BlobEndpoint=${blobEndpoint};`,
    pid: child.pid ?? 0,
    stop: async () => {
      if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL');
      await exited;
    },
  };
}
