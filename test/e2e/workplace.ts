/** Where an end-to-end test works: a temporary directory, and what must be undone at its end whatever happened. */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { Undo } from '../../hack/demonstration/undo.ts';

export interface Workplace {
  folder: string;
  logs: string;
  undo: Undo;
  /** Undoes everything; throws with what could not be undone. */
  leave(): Promise<void>;
}

export function makeWorkplace(): Workplace {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'farshore-e2e-'));
  const logs = path.join(folder, 'logs');
  mkdirSync(logs);
  const undo = new Undo();
  undo.add(`remove ${folder}`, () => rmSync(folder, { recursive: true, force: true }));
  return {
    folder,
    logs,
    undo,
    leave: async () => {
      const failures = await undo.all();
      if (failures.length > 0) throw new Error(`could not ${failures.join('; could not ')}`);
    },
  };
}

export async function freePort(): Promise<number> {
  const server = net.createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as net.AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** Polls until `look` gives something; its last error, or what it waited for, is the failure. */
export async function eventually<T>(
  wait: { what: string; timeoutMs: number; everyMs?: number },
  look: () => Promise<T | undefined> | T | undefined,
): Promise<T> {
  const deadline = performance.now() + wait.timeoutMs;
  let last: unknown;
  do {
    try {
      const found = await look();
      if (found !== undefined) return found;
      last = undefined;
    } catch (error) {
      last = error;
    }
    await new Promise((resolve) => setTimeout(resolve, wait.everyMs ?? 100));
  } while (performance.now() < deadline);
  const why = last instanceof Error ? `: ${last.message}` : '';
  throw new Error(`${wait.what}: not within ${wait.timeoutMs / 1000} s${why}`);
}
