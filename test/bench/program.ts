import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Cleanup } from './benchmark.ts';

const STDERR_KEPT = 4_000;

/**
 * Runs a program to its end and returns what it printed. It has a session of its own, so that a pipeline ends as a whole when the
 * benchmark is interrupted; or `ours`, where it has to share the processors with what else runs in it by priority alone. Rejects with the
 * end of its stderr when it fails.
 */
export async function runProgram(
  command: string,
  args: readonly string[],
  options: { cleanup: Cleanup; env?: Record<string, string>; session?: 'own' | 'ours' },
): Promise<string> {
  const isLeader = options.session !== 'ours';
  const child = spawn(command, args, {
    detached: isLeader,
    env: { ...process.env, ...options.env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const exited = once(child, 'close');
  const done = options.cleanup.add(async () => {
    if (child.pid !== undefined && child.exitCode === null && child.signalCode === null)
      process.kill(isLeader ? -child.pid : child.pid, 'SIGKILL');
    await exited.catch(() => undefined);
  });
  const printed: Buffer[] = [];
  let complaint = '';
  child.stdout.on('data', (chunk: Buffer) => printed.push(chunk));
  child.stderr.on('data', (chunk: Buffer) => {
    complaint = (complaint + chunk.toString()).slice(-STDERR_KEPT);
  });
  try {
    const [code, signal] = await exited;
    if (code === 0) return Buffer.concat(printed).toString();
    throw new Error(`${command} ended with ${signal ?? code}: ${complaint}`);
  } finally {
    await done();
  }
}
