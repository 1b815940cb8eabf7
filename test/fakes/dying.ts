/**
 * Kills a process at its Nth call to the world, before the call happens or after it did and its answer is lost: from then on every call
 * of that process fails. What it did stays; its successor gets fresh, healthy ports.
 */
export class Dying {
  #callsLeft: number;
  readonly #when: 'before' | 'after';
  dead = false;

  constructor(options: { atCall: number; when: 'before' | 'after' }) {
    this.#callsLeft = options.atCall;
    this.#when = options.when;
  }

  /** The same port, counted. Methods that return async iterables count when they are called. */
  port<T extends object>(port: T): T {
    return new Proxy(port, {
      get: (target, property) => {
        const value: unknown = Reflect.get(target, property, target);
        if (typeof value !== 'function') return value;
        return (...args: unknown[]) => this.#call(() => Reflect.apply(value, target, args));
      },
    });
  }

  #call(run: () => unknown): unknown {
    if (this.dead) throw new Killed();
    this.#callsLeft--;
    if (this.#callsLeft !== 0) return run();
    this.dead = true;
    if (this.#when === 'before') throw new Killed();
    const result = run();
    if (!(result instanceof Promise)) throw new Killed();
    const lost = () => {
      throw new Killed();
    };
    return result.then(lost, lost);
  }
}

export class Killed extends Error {
  constructor() {
    super('the process is dead');
  }
}
