/** dataplane/processserver/main.ts as a process of its own, with its cache in a directory that the test gives. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { createInterface } from 'node:readline';
import type { Bootstrap } from '../../vault/bootstrap.ts';

const PROGRAM = path.resolve(import.meta.dirname, '../../dataplane/processserver/main.ts');
/** One that takes and forgets, with the same flags. */
export const NULL_PROCESS_SERVER = path.resolve(import.meta.dirname, 'nullProcessServer.ts');
const START_TIMEOUT_MS = 60_000;

export type BootstrapInput = Omit<Bootstrap, 'port' | 'endpoints'>;

export class ProcessServerProcess {
  readonly log: Record<string, unknown>[] = [];
  readonly #child: ChildProcess;
  readonly #exited: Promise<number | undefined>;
  #waiters: (() => void)[] = [];

  private constructor(child: ChildProcess) {
    this.#child = child;
    this.#exited = once(child, 'exit').then(([code]) => code ?? undefined);
    this.#exited.then(
      () => this.#notify(),
      () => undefined,
    );
    const { stderr } = child;
    if (stderr === null) throw new Error('no stderr');
    createInterface({ input: stderr }).on('line', (line) => {
      this.log.push(parse(line));
      this.#notify();
    });
  }

  /** Starts it; `directory` holds the bootstrap file and the cache. */
  static async start(options: {
    directory: string;
    bootstrap: BootstrapInput;
    cache?: string;
    /** Node's own. */
    nodeOptions?: readonly string[];
    ownSession?: boolean;
    /** Instead of the product's. */
    program?: string;
  }): Promise<ProcessServerProcess> {
    const file = path.join(options.directory, `${options.bootstrap.name}.json`);
    await writeFile(file, JSON.stringify({ ...options.bootstrap, port: 0 }), { mode: 0o600 });
    const cache = options.cache ?? path.join(options.directory, `cache-${options.bootstrap.name}`);
    const child = spawn(
      process.execPath,
      [
        ...(options.nodeOptions ?? []),
        options.program ?? PROGRAM,
        ...['--bootstrap', file, '--cache', cache],
        ...['--metrics-port', '0', '--metrics-host', '127.0.0.1'],
      ],
      { stdio: ['ignore', 'ignore', 'pipe'], detached: options.ownSession ?? false },
    );
    return new ProcessServerProcess(child);
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /** The port for agents, once it listens. */
  async port(): Promise<number> {
    return Number((await this.logged('Listening for agents')).port);
  }

  async metricsPort(): Promise<number> {
    return Number((await this.logged('Metrics and health are served')).port);
  }

  /** The first log line with this message (a prefix of it), or one that is still to come. Rejects when the process ended. */
  async logged(message: string, code?: string): Promise<Record<string, unknown>> {
    const deadline = performance.now() + START_TIMEOUT_MS;
    for (;;) {
      const found = this.log.find(
        (line) =>
          String(line.msg).startsWith(message) && (code === undefined || line.code === code),
      );
      if (found !== undefined) return found;
      if (this.#hasExited() || performance.now() > deadline)
        throw new Error(
          `never logged: ${message}\n${this.log.map((l) => JSON.stringify(l)).join('\n')}`,
        );
      await this.#change(deadline - performance.now());
    }
  }

  /** Its exit code. */
  async exit(): Promise<number | undefined> {
    return await this.#exited;
  }

  async kill(signal: 'SIGKILL' | 'SIGTERM'): Promise<number | undefined> {
    if (!this.#hasExited()) this.#child.kill(signal);
    return await this.#exited;
  }

  #hasExited(): boolean {
    return this.#child.exitCode !== null || this.#child.signalCode !== null;
  }

  #change(withinMs: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, Math.max(1, withinMs));
      this.#waiters.push(() => {
        clearTimeout(timer);
        resolve();
      });
    });
  }

  #notify(): void {
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const waiter of waiters) waiter();
  }
}

function parse(line: string): Record<string, unknown> {
  try {
    return JSON.parse(line) as Record<string, unknown>;
  } catch {
    return { msg: line };
  }
}
