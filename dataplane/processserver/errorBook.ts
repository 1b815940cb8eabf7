import type { Clock } from '../../platform/ports.ts';

export interface BookedError {
  code: string;
  message: string;
  sinceMs: number;
}

/** What is wrong now, by code, each with the moment since when. */
export class ErrorBook {
  readonly #clock: Clock;
  readonly #errors = new Map<string, BookedError>();

  constructor(deps: { clock: Clock }) {
    this.#clock = deps.clock;
  }

  set(code: string, message: string): void {
    const sinceMs = this.#errors.get(code)?.sinceMs ?? this.#clock.now();
    this.#errors.set(code, { code, message, sinceMs });
  }

  clear(...codes: readonly string[]): void {
    for (const code of codes) this.#errors.delete(code);
  }

  clearAll(): void {
    this.#errors.clear();
  }

  list(): BookedError[] {
    return [...this.#errors.values()];
  }
}
