/**
 * A simulated process: everything that reaches it comes through here, so that it can be killed or stopped between any two steps.
 *
 * Fault model: killed, it never hears of anything again, and what it still calls has no effect; no `finally` of it runs. Stopped
 * (SIGSTOP), it hears nothing until it goes on, and then of everything in order, while timers and peers went on without it.
 */
import type { SimTime } from './time.ts';

export class Life {
  readonly name: string;
  readonly time: SimTime;
  #dead = false;
  #stopped = false;
  #waiting: (() => void)[] = [];
  readonly #onDeath: (() => void)[] = [];

  constructor(time: SimTime, name: string) {
    this.time = time;
    this.name = name;
  }

  get dead(): boolean {
    return this.#dead;
  }

  get stopped(): boolean {
    return this.#stopped;
  }

  kill(): void {
    if (this.#dead) return;
    this.#dead = true;
    this.#waiting = [];
    this.time.note(`${this.name} dies`);
    for (const act of this.#onDeath.splice(0)) act();
  }

  stop(): void {
    this.#stopped = true;
  }

  goOn(): void {
    if (!this.#stopped) return;
    this.#stopped = false;
    const waiting = this.#waiting;
    this.#waiting = [];
    // Each in a turn of its own, as a process finds them in its event loop.
    for (const act of waiting) this.time.after(0, `${this.name} goes on`, () => this.deliver(act));
  }

  /** What the world does when the process dies: its kernel closes connections, its watchdogs notice. */
  onDeath(act: () => void): void {
    if (this.#dead) act();
    else this.#onDeath.push(act);
  }

  /** Runs now, when it goes on, or never. */
  deliver(act: () => void): void {
    if (this.#dead) return;
    if (this.#stopped) this.#waiting.push(act);
    else act();
  }

  /** The process hears of the outcome only while it lives. */
  hear<T>(work: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      work.then(
        (value) => this.deliver(() => resolve(value)),
        (error: unknown) => this.deliver(() => reject(error)),
      );
    });
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    if (this.#dead) return forever();
    return new Promise((resolve, reject) => {
      if (signal?.aborted) {
        reject(signal.reason);
        return;
      }
      const abort = () => {
        timer.cancel();
        reject(signal?.reason);
      };
      const timer = this.time.after(ms, this.name, () =>
        this.deliver(() => {
          signal?.removeEventListener('abort', abort);
          resolve();
        }),
      );
      signal?.addEventListener('abort', abort, { once: true });
    });
  }
}

export function forever(): Promise<never> {
  return new Promise(() => {});
}
