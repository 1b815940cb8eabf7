/**
 * Memory for Data under way, shared by all sessions: what an agent may have sent and we may hold for it, its credit, is bounded by its
 * window, and all windows together by the pool, however many agents there are.
 *
 * Each machine on the list has a part of its own from Welcome on. Beside it there is some to lend: a session that used its window up
 * gets more, in equal parts with the others that do, and gives it back, by getting less credit than became free, when more ask for it.
 */

/** In equal parts, for all machines on the list. */
const OWN_BUDGET = 56 << 20;
const LENT_BUDGET = 24 << 20;
/** Two records of a whole leaf: with less, one batch could not be on its way while the credit of the one before comes back. */
const OWN_MIN = 160 << 10;
/** An agent's batches are a little over 1 MiB, and at most half of its first window. */
const OWN_MAX = 5 << 19;
const WINDOW_MAX = 8 << 20;

export class CreditPool {
  readonly #machines: () => number;
  readonly #windows = new Set<CreditWindow>();

  /** `machines`: how many the list has now. */
  constructor(options: { machines: () => number }) {
    this.#machines = options.machines;
  }

  /** For a new session. */
  open(): CreditWindow {
    const window = new CreditWindow(this, this.#own());
    this.#windows.add(window);
    return window;
  }

  close(window: CreditWindow): void {
    this.#windows.delete(window);
  }

  /** Bytes of all windows. */
  get bytes(): number {
    let sum = 0;
    for (const { bytes } of this.#windows) sum += bytes;
    return sum;
  }

  /** What a window should be now. */
  targetOf(window: CreditWindow): number {
    const part = this.#own();
    let borrowers = 0;
    for (const { tight, bytes, least } of this.#windows)
      if (tight || bytes > Math.max(least, part)) borrowers += 1;
    const own = Math.max(window.least, part);
    const most = Math.min(WINDOW_MAX, own + Math.floor(LENT_BUDGET / Math.max(1, borrowers)));
    if (window.bytes > most) return most;
    if (!window.tight) return Math.max(own, window.bytes);
    const free = Math.max(0, OWN_BUDGET + LENT_BUDGET - this.bytes);
    return Math.max(own, Math.min(most, window.bytes + free));
  }

  #own(): number {
    const part = Math.floor(OWN_BUDGET / Math.max(1, this.#machines()));
    return Math.min(OWN_MAX, Math.max(OWN_MIN, part));
  }
}

export class CreditWindow {
  readonly #pool: CreditPool;
  /** What Welcome grants. */
  readonly first: number;
  #bytes: number;
  #tight = false;

  constructor(pool: CreditPool, bytes: number) {
    this.#pool = pool;
    this.first = bytes;
    this.#bytes = bytes;
  }

  /** Credit that the agent has, and Data under way. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Whether its agent used it up of late. */
  get tight(): boolean {
    return this.#tight;
  }

  /** An agent makes its batches as long as half of its first window at most: below, it might wait for ever. */
  get least(): number {
    return Math.ceil(this.first / 2);
  }

  /** So many bytes are under way no more: how much credit to give back. */
  freed(bytes: number, options: { tight: boolean }): number {
    this.#tight = options.tight;
    const target = this.#pool.targetOf(this);
    const grant = Math.max(0, bytes + target - this.#bytes);
    this.#bytes += grant - bytes;
    return grant;
  }

  close(): void {
    this.#pool.close(this);
  }
}
