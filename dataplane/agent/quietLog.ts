import type { Logger } from '../../platform/ports.ts';

type Level = 'debug' | 'info' | 'warn' | 'error';
const KEPT_MAX = 1000;

/**
 * A logger that keeps what it is told while filesystems are frozen: the log may be a file on one of them, and writing to it would
 * wait for the thaw that the writer is to make.
 */
export class QuietLog {
  readonly logger: Logger;
  #kept: (() => void)[] | undefined;
  #dropped = 0;

  constructor(target: Logger) {
    this.logger = this.#wrap(target);
  }

  get isQuiet(): boolean {
    return this.#kept !== undefined;
  }

  setQuiet(quiet: boolean): void {
    if (quiet) {
      this.#kept ??= [];
      return;
    }
    const kept = this.#kept ?? [];
    this.#kept = undefined;
    for (const write of kept) write();
    if (this.#dropped > 0)
      this.logger.warn({ dropped: this.#dropped }, 'Log lines were dropped while frozen');
    this.#dropped = 0;
  }

  #wrap(target: Logger): Logger {
    const at = (level: Level) => (fields: object, message: string) => {
      const write = () => target[level](fields, message);
      if (this.#kept === undefined) write();
      else if (this.#kept.length < KEPT_MAX) this.#kept.push(write);
      else this.#dropped += 1;
    };
    return {
      debug: at('debug'),
      info: at('info'),
      warn: at('warn'),
      error: at('error'),
      child: (fields) => this.#wrap(target.child(fields)),
    };
  }
}
