/** A program that the demo runs: in a process group of its own, which is killed as a whole, its output in a file. */
import { type ChildProcess, spawn } from 'node:child_process';
import { appendFileSync, closeSync, globSync, openSync, readFileSync } from 'node:fs';
import path from 'node:path';

export interface Running {
  readonly name: string;
  readonly logFile: string;
  readonly pid: number;
  alive(): boolean;
  /** Why its end was none in order, such as `ended with exit code 3`; undefined while it runs, and when it ended with 0. */
  failure(): string | undefined;
  /** SIGTERM, and SIGKILL when it is still there after a while. Its own children, too, are gone then. */
  stop(): Promise<void>;
  /** SIGKILL to it and its children: no warning, no tidying up. */
  kill(): Promise<void>;
}

const STOP_PATIENCE_MS = 10_000;
const GROUP_PATIENCE_MS = 5_000;

export function start(options: {
  name: string;
  command: readonly string[];
  logs: string;
  env?: NodeJS.ProcessEnv;
}): Running {
  const logFile = path.join(options.logs, `${options.name}.log`);
  const log = openSync(logFile, 'a');
  const [program = '', ...args] = options.command;
  const child = spawn(program, args, {
    stdio: ['ignore', log, log],
    env: { ...process.env, ...options.env },
    detached: true,
  });
  closeSync(log);
  let unstarted: string | undefined;
  const ended = new Promise<void>((resolve) => {
    child.once('exit', () => resolve());
    child.once('error', (error) => {
      unstarted = `could not be started: ${error.message}`;
      appendFileSync(logFile, `${unstarted}\n`);
      resolve();
    });
  });
  const end = async () => {
    if (child.pid === undefined) return await ended;
    signalGroup(child.pid);
    if (alive(child)) await ended;
    await groupGone(child.pid);
  };
  let ending: Promise<void> | undefined;
  // Once: later the number may be that of somebody else's group.
  const kill = () => {
    ending ??= end();
    return ending;
  };
  return {
    name: options.name,
    logFile,
    pid: child.pid ?? -1,
    alive: () => alive(child),
    failure: () => unstarted ?? failureOf(child),
    kill,
    stop: async () => {
      if (alive(child)) {
        const hurry = setTimeout(() => child.kill('SIGKILL'), STOP_PATIENCE_MS);
        child.kill('SIGTERM');
        await ended;
        clearTimeout(hurry);
      }
      await kill();
    },
  };
}

/** The last lines of a program's output, for an error message. */
export function tail(running: Running, lines = 15): string {
  return readFileSync(running.logFile, 'utf8').trimEnd().split('\n').slice(-lines).join('\n');
}

function alive(child: ChildProcess): boolean {
  return child.pid !== undefined && child.exitCode === null && child.signalCode === null;
}

function failureOf(child: ChildProcess): string | undefined {
  if (child.signalCode !== null) return `was ended by ${child.signalCode}`;
  if (child.exitCode === null || child.exitCode === 0) return undefined;
  return `ended with exit code ${child.exitCode}`;
}

function signalGroup(group: number): void {
  try {
    process.kill(-group, 'SIGKILL');
  } catch {
    // Nobody is left in it.
  }
}

/** Waits until the group's members are gone: only then does nothing of it write any more. */
async function groupGone(group: number): Promise<void> {
  for (const deadline = Date.now() + GROUP_PATIENCE_MS; Date.now() < deadline; ) {
    if (!hasMembers(group)) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

function hasMembers(group: number): boolean {
  return globSync('/proc/[0-9]*/stat').some((file) => {
    try {
      // The name in parentheses may hold anything; state, parent and group come behind it.
      const [state, , of] = readFileSync(file, 'utf8')
        .replace(/^.*\) /s, '')
        .split(' ');
      return Number(of) === group && state !== 'Z' && state !== 'X';
    } catch {
      return false;
    }
  });
}
