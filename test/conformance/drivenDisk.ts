/** What conformance suites of a source machine's ports do to a disk of it, past every filesystem. */
export interface ByteRange {
  offset: number;
  length: number;
}

export interface DrivenDisk {
  readonly path: string;
  /** Resolves when the write has completed. Whole sectors, as all here. */
  write(range: ByteRange, value: number): Promise<void>;
  discard(range: ByteRange): Promise<void>;
  writeZeroes(range: ByteRange): Promise<void>;
  read(range: ByteRange): Promise<void>;
  /** Resolves when the driver has taken the write, which completes only once the returned function is called, before that resolves. */
  beginWrite(range: ByteRange, value: number): Promise<() => Promise<void>>;
}

/** Time of the machine that is tested passes. */
export type Pass = (ms: number) => Promise<void>;

const LOOK_MS = 10;
const LOOKS_MAX = 500;

/** Waits until it is so. */
export async function eventually(
  pass: Pass,
  condition: () => Promise<boolean> | boolean,
  what: string,
): Promise<void> {
  for (let look = 0; look < LOOKS_MAX; look += 1) {
    if (await condition()) return;
    await pass(LOOK_MS);
  }
  throw new Error(`never so: ${what}`);
}

/** In place of what a site has not, and was not said to be without. */
export function mustBeStaged(): never {
  throw new Error('the site of this suite must be able to stage this, or be declared without it');
}
