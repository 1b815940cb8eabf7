/** dataplane/agent/main.ts as a process of its own. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { createInterface } from 'node:readline';

const PROGRAM = path.resolve(import.meta.dirname, '../../dataplane/agent/main.ts');
const TIMEOUT_MS = 60_000;

export class AgentProcess {
  readonly log: Record<string, unknown>[] = [];
  readonly exited: Promise<number | undefined>;
  readonly #child: ChildProcess;

  /** `args`: as on its command line; `nodeOptions`: Node's own; `path`: in front of PATH. */
  constructor(
    args: readonly string[],
    options: { nodeOptions?: readonly string[]; path?: string } = {},
  ) {
    const { nodeOptions = [], path: before } = options;
    const PATH = before === undefined ? process.env.PATH : `${before}:${process.env.PATH}`;
    this.#child = spawn(
      process.execPath,
      [...nodeOptions, PROGRAM, '--log-level', 'debug', ...args],
      { stdio: ['ignore', 'ignore', 'pipe'], env: { ...process.env, PATH } },
    );
    this.exited = once(this.#child, 'exit').then(([code]) => code ?? undefined);
    const { stderr } = this.#child;
    if (stderr === null) throw new Error('no stderr');
    createInterface({ input: stderr }).on('line', (line) => {
      try {
        this.log.push(JSON.parse(line) as Record<string, unknown>);
      } catch {
        this.log.push({ msg: line });
      }
    });
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  get running(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** The first log line whose message begins so, or one that is still to come. */
  async logged(message: string): Promise<Record<string, unknown>> {
    const deadline = performance.now() + TIMEOUT_MS;
    for (;;) {
      const found = this.log.find((line) => String(line.msg).startsWith(message));
      if (found !== undefined) return found;
      if (!this.running || performance.now() > deadline)
        throw new Error(
          `never logged: ${message}\n${this.log.map((line) => JSON.stringify(line)).join('\n')}`,
        );
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  /** Stops it where it is, and nothing else. SIGKILL ends it all the same. */
  stop(): void {
    this.#child.kill('SIGSTOP');
  }

  async kill(signal: 'SIGKILL' | 'SIGTERM'): Promise<number | undefined> {
    if (this.running) this.#child.kill(signal);
    return await this.exited;
  }
}
