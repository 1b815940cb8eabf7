/**
 * A process that dies: everything it does to the world goes through ports wrapped here, and from the fatal step on nothing it calls
 * ever takes effect or answers. Every call is two steps: before it takes effect, and after, when its answer is lost.
 */
export class Mortality {
  /** Calls seen so far, two steps each. */
  steps = 0;
  readonly #fatalStep: number;
  readonly #death = Promise.withResolvers<never>();

  /** Dies at this step; never when it is infinite. */
  constructor(fatalStep: number = Number.POSITIVE_INFINITY) {
    this.#fatalStep = fatalStep;
    this.#death.promise.catch(() => {});
  }

  get dead(): boolean {
    return this.steps > this.#fatalStep;
  }

  /** Rejects when the process dies before `work` is done. */
  async outlive<T>(work: Promise<T>): Promise<T> {
    return await Promise.race([work, this.#death.promise]);
  }

  /** A port of this process. Objects with methods that it answers with (files) are wrapped as well. */
  wrap<T extends object>(port: T): T {
    return new Proxy(port, {
      get: (target, name) => {
        const member: unknown = Reflect.get(target, name);
        if (typeof member !== 'function') return member;
        return (...args: unknown[]) => this.#call(() => Reflect.apply(member, target, args));
      },
    });
  }

  #call(act: () => unknown): unknown {
    if (!this.#survives()) return forever();
    const result = act();
    if (!(result instanceof Promise)) {
      this.#survives();
      return result;
    }
    return result.then(
      (value: unknown) => (this.#survives() ? this.#answer(value) : forever()),
      (error: unknown) => (this.#survives() ? Promise.reject(error) : forever()),
    );
  }

  #answer(value: unknown): unknown {
    const hasMethods =
      typeof value === 'object' &&
      value !== null &&
      Object.values(value).some((member) => typeof member === 'function');
    return hasMethods ? this.wrap(value) : value;
  }

  #survives(): boolean {
    this.steps += 1;
    if (this.dead) this.#death.reject(new Error('the process died'));
    return !this.dead;
  }
}

function forever(): Promise<never> {
  return new Promise(() => {});
}
