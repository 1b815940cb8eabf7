/** The largest single buffer that any parser needs: a log entry's payload, and room to spare. */
const ALLOCATION_MAX = 16 << 20;

/** While `act` runs, whoever asks for more memory in one piece than any parser may need gets an error that no parser throws. */
export async function withLimitedMemory<T>(act: () => Promise<T>): Promise<T> {
  const genuine = { Uint8Array, ArrayBuffer };
  const names = ['alloc', 'allocUnsafe', 'allocUnsafeSlow'] as const;
  const makers = names.map((name) => [name, Buffer[name]] as const);
  globalThis.Uint8Array = limited(genuine.Uint8Array);
  globalThis.ArrayBuffer = limited(genuine.ArrayBuffer);
  for (const [name, make] of makers)
    Buffer[name] = (size: number, ...rest: never[]) => {
      check(size);
      return Reflect.apply(make, Buffer, [size, ...rest]);
    };
  try {
    return await act();
  } finally {
    Object.assign(globalThis, genuine);
    for (const [name, make] of makers) Buffer[name] = make;
  }
}

function limited<T extends Uint8ArrayConstructor | ArrayBufferConstructor>(genuine: T): T {
  return new Proxy(genuine, {
    construct: (target, args: unknown[]) => {
      check(args[0]);
      return Reflect.construct(target, args) as object;
    },
  });
}

function check(size: unknown): void {
  if (typeof size === 'number' && size > ALLOCATION_MAX)
    throw new Error(`${size} bytes are asked for in one piece`);
}
