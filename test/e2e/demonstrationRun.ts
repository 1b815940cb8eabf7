/** hack/demo as a terminal runs it: in a process group of its own, which Ctrl-C signals as a whole. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { existsSync, globSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { eventually, type Workplace } from './workplace.ts';

const demo = path.resolve(import.meta.dirname, '../../hack/demo');
const INSTANCES = '/sys/kernel/tracing/instances';

export class DemonstrationRun {
  /** Its exit code. */
  readonly ended: Promise<number | null>;
  readonly #child: ChildProcess;
  /** All that it makes is under its TMPDIR: what is found there, or was started with it, is this run's. */
  readonly #temporary: string;
  readonly #seenInstances = new Set<string>();
  #stdout = '';
  #stderr = '';

  /** `temporary`: its TMPDIR; a folder of the workplace when left out. */
  constructor(
    workplace: Workplace,
    args: readonly string[],
    options: { temporary?: string; env?: NodeJS.ProcessEnv } = {},
  ) {
    this.#temporary = options.temporary ?? path.join(workplace.folder, 'temporary');
    mkdirSync(this.#temporary, { recursive: true });
    this.#child = spawn(demo, args, {
      env: { ...process.env, ...options.env, TMPDIR: this.#temporary },
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
    });
    this.#child.stdout?.on('data', (chunk: Buffer) => {
      this.#stdout += chunk.toString();
    });
    this.#child.stderr?.on('data', (chunk: Buffer) => {
      this.#stderr += chunk.toString();
    });
    this.ended = new Promise((resolve) => this.#child.once('close', resolve));
    workplace.undo.add('end the demonstration', async () => {
      if (this.running) this.interrupt();
      await this.ended;
    });
  }

  get running(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  get stdout(): string {
    return this.#stdout;
  }

  get stderr(): string {
    return this.#stderr;
  }

  get said(): string {
    return this.#stdout + this.#stderr;
  }

  /** Its own directory; undefined before it has one. */
  get folder(): string | undefined {
    const name = readdirSync(this.#temporary).find((one) => one.startsWith('farshore-demo-'));
    return name === undefined ? undefined : path.join(this.#temporary, name);
  }

  /** Resolves once it said this. */
  async saying(pattern: RegExp, timeoutMs: number): Promise<void> {
    await eventually({ what: `hack/demo saying ${pattern}`, timeoutMs }, () => {
      this.#noteInstance();
      return pattern.test(this.said) || !this.running ? true : undefined;
    });
    if (!pattern.test(this.said))
      throw new Error(`it ended before it said ${pattern}: ${this.said}`);
  }

  /** Ctrl-C. */
  interrupt(): void {
    this.#noteInstance();
    process.kill(-(this.#child.pid ?? 0), 'SIGINT');
  }

  /** Kills the one process that the terminal knows. */
  killForeground(): void {
    this.#child.kill('SIGKILL');
  }

  /** Closes the reading end of its output, as `| head` does. */
  stopListening(): void {
    this.#child.stdout?.destroy();
  }

  /** A line for each process, tracing instance, loop device, mount and file that is there of it. */
  leftovers(): string[] {
    const lines = (text: string) => text.split('\n').filter((one) => one.includes(this.#temporary));
    return [
      ...processesWith(`TMPDIR=${this.#temporary}`),
      ...[...this.#seenInstances].filter((one) => existsSync(one)),
      ...lines(execFileSync('losetup', ['-a'], { encoding: 'utf8' })),
      ...lines(readFileSync('/proc/self/mounts', 'utf8')),
      ...readdirSync(this.#temporary).map((name) => path.join(this.#temporary, name)),
    ];
  }

  /** The agent's, by the machine's id in its state: nothing else tells whose a tracing instance is. */
  #noteInstance(): void {
    const identity = path.join(this.folder ?? '', 'agent-state/identity.json');
    if (this.folder === undefined || !existsSync(identity)) return;
    const { machineId } = JSON.parse(readFileSync(identity, 'utf8')) as { machineId: string };
    this.#seenInstances.add(`${INSTANCES}/farshore-${machineId}`);
  }
}

function processesWith(setting: string): string[] {
  return globSync('/proc/[0-9]*').flatMap((folder) => {
    try {
      const settings = readFileSync(`${folder}/environ`, 'utf8').split('\0');
      if (!settings.includes(setting)) return [];
      return [`${folder} ${readFileSync(`${folder}/cmdline`, 'utf8').replaceAll('\0', ' ')}`];
    } catch {
      // It has ended meanwhile.
      return [];
    }
  });
}
