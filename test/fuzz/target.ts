/** A parser, as something that bytes are thrown at. */
export interface FuzzTarget {
  name: string;
  /** Good inputs, from which others are made. */
  samples: () => readonly Uint8Array[];
  /**
   * Gives the bytes to the parser. Throws when it breaks a promise: an error that is not its own, a value that does not come back as
   * itself, a length that it does not keep to.
   */
  run: (bytes: Uint8Array) => void | Promise<void>;
  /** Makes checksums right again, so that what lies behind them is reached. Changes the bytes in place. */
  mend?: (bytes: Uint8Array) => void;
}

/** What a parser may throw: its own error, with one of its codes. Anything else is thrown on. */
export function expectOwn(
  error: unknown,
  kind: abstract new (...args: never[]) => Error,
  codes: RegExp,
) {
  const { code } = error as { code?: unknown };
  if (!(error instanceof kind) || typeof code !== 'string' || !codes.test(code)) throw error;
}

/** Fails unless both say the same; bigints and bytes included. */
export function expectSame(what: string, a: unknown, b: unknown): void {
  const [left, right] = [textOf(a), textOf(b)];
  if (left !== right)
    throw new Error(`${what}: ${left.slice(0, 300)} is not ${right.slice(0, 300)}`);
}

function textOf(value: unknown): string {
  // A Buffer has turned itself into something else before the replacer is given it.
  return JSON.stringify(value, function (this: Record<string, unknown>, key: string, inner) {
    const genuine = this[key];
    if (typeof genuine === 'bigint') return `${genuine}n`;
    return genuine instanceof Uint8Array ? Buffer.from(genuine).toString('hex') : inner;
  });
}
