/** One of Farshore's processes over its lives: started again when it ends by itself, as a kubelet or systemd does. */
import type { Running } from '../../hack/demonstration/process.ts';

const LOOK_EVERY_MS = 250;
const RESTART_AFTER_MS = 1_000;

export class Part {
  readonly name: string;
  /** Ends that nobody asked for, and starts that failed. */
  readonly ownEnds: string[] = [];
  readonly #start: () => Running | Promise<Running>;
  readonly #signal: AbortSignal;
  #running: Running | undefined;
  #timer: NodeJS.Timeout | undefined;
  /** Starting and killing, one after the other. */
  #work: Promise<void> = Promise.resolve();

  /** Once `signal` is aborted it is not started any more, and can be asked to end. */
  constructor(
    name: string,
    options: { start: () => Running | Promise<Running>; signal: AbortSignal },
  ) {
    this.name = name;
    this.#start = options.start;
    this.#signal = options.signal;
    this.#signal.addEventListener('abort', () => {
      clearTimeout(this.#timer);
      this.resume();
    });
  }

  get logFile(): string | undefined {
    return this.#running?.logFile;
  }

  get alive(): boolean {
    return this.#running?.alive() ?? false;
  }

  /** Starts it, and again whenever it ends, until `kill`. */
  async up(): Promise<void> {
    await this.#next(async () => {
      if (this.#signal.aborted || this.alive) return;
      this.#running = await this.#start();
      this.#watch();
    });
  }

  /** SIGKILL; it stays dead. */
  async kill(): Promise<void> {
    await this.#next(async () => {
      await this.#running?.kill();
    });
  }

  suspend(): void {
    if (this.alive) process.kill(this.#running?.pid ?? 0, 'SIGSTOP');
  }

  resume(): void {
    if (this.alive) process.kill(this.#running?.pid ?? 0, 'SIGCONT');
  }

  #next(work: () => Promise<void>): Promise<void> {
    clearTimeout(this.#timer);
    this.#work = this.#work.catch(() => undefined).then(work);
    return this.#work;
  }

  #watch(): void {
    clearTimeout(this.#timer);
    if (this.#signal.aborted) return;
    this.#timer = setTimeout(() => {
      if (this.alive) return this.#watch();
      this.ownEnds.push(`${this.name} ${this.#running?.failure() ?? 'ended in order'}`);
      this.#timer = setTimeout(() => {
        this.up().catch((error) => this.ownEnds.push(`${this.name}: ${error}`));
      }, RESTART_AFTER_MS);
    }, LOOK_EVERY_MS);
  }
}
