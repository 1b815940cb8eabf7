/** One of Farshore's processes over its lives: started again when it ends by itself, as a kubelet or systemd does. */
import type { Running } from '../../hack/demonstration/process.ts';

const LOOK_EVERY_MS = 250;
const RESTART_AFTER_MS = 1_000;

export class Part {
  readonly name: string;
  /** Ends that nobody asked for. */
  readonly ownEnds: string[] = [];
  readonly #start: () => Running | Promise<Running>;
  #running: Running | undefined;
  #watch: NodeJS.Timeout | undefined;
  #wanted = false;

  constructor(name: string, start: () => Running | Promise<Running>) {
    this.name = name;
    this.#start = start;
  }

  get logFile(): string | undefined {
    return this.#running?.logFile;
  }

  get alive(): boolean {
    return this.#running?.alive() ?? false;
  }

  /** Starts it, and again whenever it ends, until `kill` or `retire`. */
  async up(): Promise<void> {
    this.#wanted = true;
    this.#running = await this.#start();
    clearInterval(this.#watch);
    this.#watch = setInterval(() => this.#look(), LOOK_EVERY_MS);
  }

  /** SIGKILL; it stays dead. */
  async kill(): Promise<void> {
    this.#wanted = false;
    clearInterval(this.#watch);
    await this.#running?.kill();
  }

  suspend(): void {
    if (this.alive) process.kill(this.#running?.pid ?? 0, 'SIGSTOP');
  }

  resume(): void {
    if (this.alive) process.kill(this.#running?.pid ?? 0, 'SIGCONT');
  }

  /** Nobody starts it again, and it can be asked to end. */
  retire(): void {
    this.#wanted = false;
    clearInterval(this.#watch);
    this.resume();
  }

  #look(): void {
    const running = this.#running;
    if (!this.#wanted || running === undefined || running.alive()) return;
    clearInterval(this.#watch);
    this.ownEnds.push(`${this.name} ${running.failure() ?? 'ended in order'}`);
    setTimeout(() => {
      if (this.#wanted) this.up().catch((error) => this.ownEnds.push(String(error)));
    }, RESTART_AFTER_MS);
  }
}
