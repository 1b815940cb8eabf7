/** dataplane/applier/main.ts as a process of its own. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

const PROGRAM = path.resolve(import.meta.dirname, '../../dataplane/applier/main.ts');

export class ApplierProcess {
  readonly #child: ChildProcess;
  output = '';

  constructor(files: { bootstrap: string; state: string }) {
    this.#child = spawn(
      process.execPath,
      [PROGRAM, '--bootstrap', files.bootstrap, '--state', files.state, '--metrics-port', '0'],
      { stdio: ['ignore', 'ignore', 'pipe'] },
    );
    this.#child.stderr?.on('data', (chunk) => {
      this.output += chunk;
    });
  }

  /** What it serves, once it says that it is healthy. */
  async metrics(): Promise<string> {
    await this.waitFor(async () => /"port":\d+/.test(this.output));
    const port = /"port":(\d+)/.exec(this.output)?.[1];
    const health = await fetch(`http://127.0.0.1:${port}/healthz`);
    if (health.status !== 200) throw new Error(`its health is ${health.status}`);
    return await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
  }

  /** Until a condition holds; tells what the applier said when it never does. */
  async waitFor(condition: () => Promise<boolean>): Promise<void> {
    for (let tries = 0; tries < 1200; tries += 1) {
      if (await condition()) return;
      await delay(50);
    }
    throw new Error(`it did not come true; the applier said:\n${this.output}`);
  }

  async end(signal: 'SIGTERM' | 'SIGKILL'): Promise<number | null> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      const ended = once(this.#child, 'exit');
      this.#child.kill(signal);
      await ended;
    }
    return this.#child.exitCode;
  }
}
