import { spawn } from 'node:child_process';
import { accessSync, constants, readdirSync, statSync } from 'node:fs';
import path from 'node:path';
import { errorMessage } from '../errors.ts';
import type { HookRunner } from '../ports.ts';

const OUTPUT_KEPT = 2048;

/** What a post-hook gets when those before it used up the time: its application must not stay at rest for their sake. */
const POST_LEAST_MS = 5_000;

/**
 * Runs the executables of a directory as run-parts does: by name, hidden files and editors' backups left out. They share the timeout;
 * but after the barrier each gets 5 s at least.
 */
export const linuxHooks: HookRunner = {
  async run({ directory, phase, timeoutMs }) {
    const started = performance.now();
    const failures: { hook: string; reason: string }[] = [];
    let hooks: string[];
    try {
      hooks = executablesIn(directory);
    } catch (error) {
      return { failures: [{ hook: directory, reason: errorMessage(error) }] };
    }
    for (const hook of hooks) {
      const leftMs = timeoutMs - (performance.now() - started);
      const leastMs = phase === 'post' ? Math.min(POST_LEAST_MS, timeoutMs) : 0;
      const reason = await runHook(path.join(directory, hook), {
        phase,
        timeoutMs: Math.max(leftMs, leastMs, 0),
        allMs: timeoutMs,
      });
      if (reason === undefined) continue;
      failures.push({ hook, reason });
      if (phase === 'pre') break;
    }
    return { failures };
  },
};

function executablesIn(directory: string): string[] {
  return readdirSync(directory)
    .filter((name) => !name.startsWith('.') && !/(~|\.bak|\.dpkg-\w+|\.rpm\w+)$/.test(name))
    .filter((name) => {
      const file = path.join(directory, name);
      try {
        accessSync(file, constants.X_OK);
        return statSync(file).isFile();
      } catch {
        return false;
      }
    })
    .sort();
}

function runHook(
  file: string,
  options: { phase: 'pre' | 'post'; timeoutMs: number; allMs: number },
): Promise<string | undefined> {
  return new Promise((resolve) => {
    const child = spawn(file, [options.phase], {
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
      cwd: '/',
    });
    let output = '';
    let late = false;
    const keep = (chunk: Buffer) => {
      output = (output + chunk.toString('utf8')).slice(-OUTPUT_KEPT);
    };
    child.stdout.on('data', keep);
    child.stderr.on('data', keep);
    const timer = setTimeout(() => {
      late = true;
      // The whole group: a hook may have started others. What it left in the background keeps the pipes open.
      if (child.pid !== undefined) killGroup(child.pid);
      child.stdout.destroy();
      child.stderr.destroy();
    }, options.timeoutMs);
    child.on('error', (error) => {
      clearTimeout(timer);
      resolve(error.message);
    });
    child.on('exit', (code, signal) => {
      clearTimeout(timer);
      const said = output.trim() === '' ? '' : `: ${output.trim()}`;
      if (late)
        resolve(`it did not end in time (${options.allMs / 1000} s for all hooks together)${said}`);
      else if (code !== 0) resolve(`it ended with ${code ?? signal}${said}`);
      else resolve(undefined);
    });
  });
}

function killGroup(pid: number): void {
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // It ended meanwhile.
  }
}
