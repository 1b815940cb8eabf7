import type { Clock } from '../../platform/ports.ts';

/** What is wrong with an agent's work, by code, since when. */
export class ErrorList {
  readonly #clock: Clock;
  readonly #changed: () => void;
  readonly #errors = new Map<string, { code: string; message: string; sinceMs: number }>();

  /** `changed`: called when somebody should be told. */
  constructor(options: { clock: Clock; changed: () => void }) {
    this.#clock = options.clock;
    this.#changed = options.changed;
  }

  get all(): { code: string; message: string; sinceMs: number }[] {
    return [...this.#errors.values()];
  }

  set(code: string, message: string): void {
    const sinceMs = this.#errors.get(code)?.sinceMs ?? this.#clock.now();
    this.#errors.set(code, { code, message, sinceMs });
    this.#changed();
  }

  clear(code: string): void {
    if (this.#errors.delete(code)) this.#changed();
  }
}
