/** A program that the demo runs, its output in a file, killed by its own pid. */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import path from 'node:path';

export interface Running {
  readonly name: string;
  readonly logFile: string;
  readonly pid: number;
  alive(): boolean;
  /** SIGTERM, and SIGKILL when it is still there after a while. */
  stop(): Promise<void>;
  /** SIGKILL: no warning, no tidying up. */
  kill(): Promise<void>;
}

const STOP_PATIENCE_MS = 10_000;

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
  });
  closeSync(log);
  const ended = new Promise<void>((resolve) => {
    child.once('exit', () => resolve());
    child.once('error', () => resolve());
  });
  const signalled = async (signal: NodeJS.Signals) => {
    if (alive(child)) child.kill(signal);
    await ended;
  };
  return {
    name: options.name,
    logFile,
    pid: child.pid ?? -1,
    alive: () => alive(child),
    kill: () => signalled('SIGKILL'),
    stop: async () => {
      const hurry = setTimeout(() => child.kill('SIGKILL'), STOP_PATIENCE_MS);
      await signalled('SIGTERM').finally(() => clearTimeout(hurry));
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
