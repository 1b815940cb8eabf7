import { Readable } from 'node:stream';
import { expect, test } from 'vitest';
import type { ObjectStore } from '../../platform/ports.ts';

/** What every ObjectStore must do. Called inside a `describe`; keys of each test are its own, so a store may be shared. */
export function objectStoreConformance(open: () => ObjectStore): void {
  let tests = 0;
  const fresh = () => {
    tests += 1;
    return { store: open(), at: `conformance/${tests}/` };
  };

  test('what is not there reads as undefined', async () => {
    const { store, at } = fresh();
    expect(await store.get(`${at}none`)).toBeUndefined();
    expect(await store.head(`${at}none`)).toBeUndefined();
    expect(await store.remove(`${at}none`)).toBe('missing');
    expect(await collect(store.list(at))).toEqual([]);
  });

  test('put if absent creates once, and never replaces', async () => {
    const { store, at } = fresh();
    const first = await store.putIfAbsent(`${at}a`, bytes('first'));
    expect(first.outcome).toBe('created');
    expect(await store.putIfAbsent(`${at}a`, bytes('second'))).toEqual({ outcome: 'exists' });
    const stored = await store.get(`${at}a`);
    expect(text(stored?.body)).toBe('first');
    expect(stored?.etag).toBe(first.outcome === 'created' && first.etag);
    expect(stored).toMatchObject({ key: `${at}a`, size: 5 });
  });

  test('of many who create at once, exactly one does', async () => {
    const { store, at } = fresh();
    const results = await Promise.all(
      Array.from({ length: 8 }, (_, index) => store.putIfAbsent(`${at}race`, bytes(`${index}`))),
    );
    const winners = results.flatMap((one, index) => (one.outcome === 'created' ? [index] : []));
    expect(winners).toHaveLength(1);
    expect(text((await store.get(`${at}race`))?.body)).toBe(String(winners[0]));
  });

  test('a source larger than a piece arrives whole', async () => {
    const { store, at } = fresh();
    const body = pattern(3 * 1024 * 1024 + 17);
    const source = { size: body.length, open: () => Readable.from(slices(body, 70_000)) };
    expect((await store.putIfAbsent(`${at}big`, source)).outcome).toBe('created');
    expect(Buffer.from((await store.get(`${at}big`))?.body ?? []).equals(body)).toBe(true);
    expect((await store.putIfAbsent(`${at}array`, body)).outcome).toBe('created');
    expect(Buffer.from((await store.get(`${at}array`))?.body ?? []).equals(body)).toBe(true);
  });

  test('a source that gives too little, too much or fails stores nothing', async () => {
    const { store, at } = fresh();
    const short = { size: 100, open: () => Readable.from([Buffer.alloc(99)]) };
    const long = { size: 100, open: () => Readable.from([Buffer.alloc(101)]) };
    const broken = {
      size: 100,
      open: () =>
        new Readable({
          read() {
            this.destroy(new Error('the disk is gone'));
          },
        }),
    };
    for (const source of [short, long, broken])
      await expect(store.putIfAbsent(`${at}bad`, source)).rejects.toThrow();
    expect(await store.head(`${at}bad`)).toBeUndefined();
  });

  test('an empty object exists', async () => {
    const { store, at } = fresh();
    await store.putIfAbsent(`${at}empty`, new Uint8Array(0));
    expect(await store.get(`${at}empty`)).toMatchObject({ size: 0, body: new Uint8Array(0) });
    expect(await store.get(`${at}empty`, { length: 100 })).toMatchObject({ size: 0 });
  });

  test('replace needs the version that was read', async () => {
    const { store, at } = fresh();
    const { etag } = await store.put(`${at}doc`, bytes('one'));
    const second = await store.replace(`${at}doc`, bytes('two'), { etag });
    expect(second.outcome).toBe('replaced');
    expect(await store.replace(`${at}doc`, bytes('three'), { etag })).toEqual({
      outcome: 'conflict',
    });
    expect(await store.replace(`${at}none`, bytes('x'), { etag })).toEqual({ outcome: 'conflict' });
    const stored = await store.get(`${at}doc`);
    expect(text(stored?.body)).toBe('two');
    expect(stored?.etag).toBe(second.outcome === 'replaced' && second.etag);
  });

  test('of many who replace the same version, exactly one does', async () => {
    const { store, at } = fresh();
    const { etag } = await store.put(`${at}cas`, bytes('0'));
    const results = await Promise.all(
      Array.from({ length: 8 }, (_, index) =>
        store.replace(`${at}cas`, bytes(`${index}`), { etag }),
      ),
    );
    expect(results.filter((one) => one.outcome === 'replaced')).toHaveLength(1);
  });

  test('put replaces whatever is there', async () => {
    const { store, at } = fresh();
    const first = await store.put(`${at}status`, bytes('1'));
    const second = await store.put(`${at}status`, bytes('22'));
    expect(second.etag).not.toBe(first.etag);
    expect(await store.head(`${at}status`)).toMatchObject({ size: 2, etag: second.etag });
  });

  test('ranges read a part, and tell the whole size', async () => {
    const { store, at } = fresh();
    await store.putIfAbsent(`${at}r`, bytes('0123456789'));
    const part = await store.get(`${at}r`, { offset: 3, length: 4 });
    expect([text(part?.body), part?.size]).toEqual(['3456', 10]);
    const tail = await store.get(`${at}r`, { offset: 8 });
    expect([text(tail?.body), tail?.size]).toEqual(['89', 10]);
    const over = await store.get(`${at}r`, { offset: 8, length: 100 });
    expect([text(over?.body), over?.size]).toEqual(['89', 10]);
    const past = await store.get(`${at}r`, { offset: 10, length: 4 });
    expect([text(past?.body), past?.size]).toEqual(['', 10]);
  });

  test('list is in key order, complete, and starts after a key', async () => {
    const { store, at } = fresh();
    const names = ['b/2', 'a', 'b/1', 'c', 'b/10'];
    for (const name of names) await store.put(at + name, bytes(name));
    const keys = async (prefix: string, startAfter?: string) =>
      (
        await collect(store.list(at + prefix, startAfter ? { startAfter: at + startAfter } : {}))
      ).map((info) => info.key.slice(at.length));
    expect(await keys('')).toEqual(['a', 'b/1', 'b/10', 'b/2', 'c']);
    expect(await keys('b/')).toEqual(['b/1', 'b/10', 'b/2']);
    expect(await keys('', 'b/10')).toEqual(['b/2', 'c']);
    expect(await keys('', 'b/')).toEqual(['b/1', 'b/10', 'b/2', 'c']);
    const [first] = await collect(store.list(`${at}a`));
    expect(first).toEqual(await store.head(`${at}a`));
  });

  test('remove removes the named version only', async () => {
    const { store, at } = fresh();
    const first = await store.put(`${at}x`, bytes('1'));
    const second = await store.put(`${at}x`, bytes('2'));
    expect(await store.remove(`${at}x`, { etag: first.etag })).toBe('conflict');
    expect(await store.remove(`${at}x`, { etag: second.etag })).toBe('removed');
    expect(await store.remove(`${at}x`, { etag: second.etag })).toBe('missing');
    await store.put(`${at}x`, bytes('3'));
    expect(await store.remove(`${at}x`)).toBe('removed');
    expect(await store.head(`${at}x`)).toBeUndefined();
  });

  test('an aborted call rejects with the reason', async () => {
    const { store, at } = fresh();
    const reason = new Error('shutting down');
    const signal = AbortSignal.abort(reason);
    await expect(store.get(`${at}x`, { signal })).rejects.toBe(reason);
    await expect(store.putIfAbsent(`${at}x`, bytes('1'), { signal })).rejects.toBe(reason);
    expect(await store.head(`${at}x`)).toBeUndefined();
  });

  test('the store tells its time in whole seconds', async () => {
    const { store } = fresh();
    const time = await store.serverTime();
    expect(time).toBeGreaterThan(Date.UTC(2025, 0, 1));
    expect(time % 1000).toBe(0);
  });
}

export async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const out: T[] = [];
  for await (const item of items) out.push(item);
  return out;
}

/** Bytes that differ from place to place. */
export function pattern(size: number): Buffer {
  const out = Buffer.alloc(size);
  for (let index = 0; index < size; index += 1) out[index] = (index * 31 + (index >> 8)) & 0xff;
  return out;
}

function* slices(body: Buffer, size: number): Generator<Buffer> {
  for (let offset = 0; offset < body.length; offset += size)
    yield body.subarray(offset, offset + size);
}

function bytes(value: string): Uint8Array {
  return new TextEncoder().encode(value);
}

function text(value: Uint8Array | undefined): string | undefined {
  return value && new TextDecoder().decode(value);
}
