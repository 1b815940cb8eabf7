import { expect, test } from 'vitest';
import type { PageBlobStore, PageFence } from '../../platform/ports.ts';
import { collect, pattern } from './objectStore.ts';

const KIB = 1024;
const MIB = 1024 * KIB;

/** What every PageBlobStore must do. Keys of each test are its own, so a store may be shared. */
export function pageBlobStoreConformance(open: () => PageBlobStore): void {
  let tests = 0;
  const fresh = async (
    size = MIB,
  ): Promise<{ store: PageBlobStore; key: string; fence: PageFence }> => {
    tests += 1;
    const key = `conformance/pages/${tests}.vhd`;
    const store = open();
    expect(await store.create(key, { size, sequenceNumber: 1, metadata: { a: 'b' } })).toBe(
      'created',
    );
    return { store, key, fence: await store.fence(key, { sequenceNumber: 2, leaseSeconds: 60 }) };
  };

  test('a blob is created once, with its size, sequence number and metadata', async () => {
    const store = open();
    const key = 'conformance/pages/created.vhd';
    const made = { size: MIB, sequenceNumber: 7, metadata: { machine: 'm-1' } };
    expect(await store.info(key)).toBeUndefined();
    expect(await store.create(key, made)).toBe('created');
    expect(await store.create(key, { size: 2 * MIB, sequenceNumber: 9 })).toBe('exists');
    expect(await store.info(key)).toMatchObject({ ...made, leased: false });
  });

  test('sizes and metadata that the service could not keep are refused', async () => {
    const store = open();
    const key = 'conformance/pages/refused.vhd';
    const refused = { code: 'StoreRequestRefused' };
    await expect(store.create(key, { size: 1000, sequenceNumber: 0 })).rejects.toMatchObject(
      refused,
    );
    await expect(
      store.create(key, { size: 512, sequenceNumber: 0, metadata: { writerEpoch: '1' } }),
    ).rejects.toMatchObject(refused);
    expect(await store.info(key)).toBeUndefined();
  });

  test('what is not there is told as missing', async () => {
    const store = open();
    const key = 'conformance/pages/none.vhd';
    const missing = { code: 'StoreObjectMissing' };
    await expect(store.read(key, { offset: 0, length: 512 })).rejects.toMatchObject(missing);
    await expect(store.fence(key, { sequenceNumber: 1, leaseSeconds: 60 })).rejects.toMatchObject(
      missing,
    );
    await expect(collect(store.ranges(key))).rejects.toMatchObject(missing);
    expect(await collect(store.snapshots(key))).toEqual([]);
    expect(await store.copyState(key)).toEqual({ state: 'missing' });
    await store.remove(key);
    await store.removeSnapshot(key, '2026-01-01T00:00:00.0000000Z');
  });

  test('written pages read back, everything else is zero', async () => {
    const { store, key, fence } = await fresh();
    const body = pattern(8 * KIB);
    await store.write(key, body, 64 * KIB - 4 * KIB, fence);
    const read = await store.read(key, { offset: 56 * KIB, length: 16 * KIB });
    const expected = Buffer.alloc(16 * KIB);
    body.copy(expected, 4 * KIB);
    expect(Buffer.from(read).equals(expected)).toBe(true);
  });

  test('ranges are merged, in order, and lose what is cleared', async () => {
    const { store, key, fence } = await fresh();
    const page = pattern(4 * KIB);
    for (const at of [12, 4, 8, 32]) await store.write(key, page, at * KIB, fence);
    expect(await collect(store.ranges(key))).toEqual([
      { offset: 4 * KIB, length: 12 * KIB },
      { offset: 32 * KIB, length: 4 * KIB },
    ]);
    await store.clear(key, { offset: 8 * KIB, length: 4 * KIB }, fence);
    expect(await collect(store.ranges(key))).toEqual([
      { offset: 4 * KIB, length: 4 * KIB },
      { offset: 12 * KIB, length: 4 * KIB },
      { offset: 32 * KIB, length: 4 * KIB },
    ]);
    expect(
      Buffer.from(await store.read(key, { offset: 8 * KIB, length: 512 })).every((b) => b === 0),
    ).toBe(true);
  });

  test('writes off the page grid, past the end or too large are refused', async () => {
    const { store, key, fence } = await fresh();
    const refused = { code: 'StoreRequestRefused' };
    await expect(store.write(key, pattern(512), 100, fence)).rejects.toMatchObject(refused);
    await expect(store.write(key, pattern(100), 0, fence)).rejects.toMatchObject(refused);
    await expect(store.write(key, pattern(4 * MIB + 512), 0, fence)).rejects.toMatchObject(refused);
    await expect(store.read(key, { offset: MIB - 512, length: KIB })).rejects.toMatchObject(
      refused,
    );
  });

  test('4 MiB go in one write', async () => {
    const { store, key, fence } = await fresh(8 * MIB);
    const body = pattern(4 * MIB);
    await store.write(key, body, 4 * MIB, fence);
    expect(
      Buffer.from(await store.read(key, { offset: 4 * MIB, length: 4 * MIB })).equals(body),
    ).toBe(true);
  });

  test('a writer that was fenced off can do nothing any more', async () => {
    const { store, key, fence: old } = await fresh();
    await store.write(key, pattern(512), 0, old);
    const next = await store.fence(key, { sequenceNumber: 3, leaseSeconds: 60 });
    const lost = { code: 'FenceLost' };
    await expect(store.write(key, pattern(512), 512, old)).rejects.toMatchObject(lost);
    await expect(store.clear(key, { offset: 0, length: 512 }, old)).rejects.toMatchObject(lost);
    await expect(store.resize(key, 2 * MIB, old)).rejects.toMatchObject(lost);
    await expect(store.snapshot(key, { fence: old, metadata: {} })).rejects.toMatchObject(lost);
    await expect(store.renew(key, old)).rejects.toMatchObject(lost);
    await store.release(key, old);
    await store.write(key, pattern(512), 512, next);
    expect(await collect(store.ranges(key))).toEqual([{ offset: 0, length: KIB }]);
  });

  test('the right lease with another sequence number writes nothing', async () => {
    const { store, key, fence } = await fresh();
    const wrong = { ...fence, sequenceNumber: fence.sequenceNumber - 1 };
    const lost = { code: 'FenceLost' };
    await expect(store.write(key, pattern(512), 0, wrong)).rejects.toMatchObject(lost);
    await expect(store.snapshot(key, { fence: wrong, metadata: {} })).rejects.toMatchObject(lost);
    expect(await collect(store.ranges(key))).toEqual([]);
  });

  test('who comes with a lower sequence number gets no fence, and does not disturb its holder', async () => {
    const { store, key, fence } = await fresh();
    await expect(store.fence(key, { sequenceNumber: 1, leaseSeconds: 60 })).rejects.toMatchObject({
      code: 'FenceLost',
    });
    await store.write(key, pattern(512), 0, fence);
    await store.renew(key, fence);
  });

  test('of two who fence at once, only the one with the higher number can write', async () => {
    const { store, key } = await fresh();
    const both = await Promise.allSettled([
      store.fence(key, { sequenceNumber: 10, leaseSeconds: 60 }),
      store.fence(key, { sequenceNumber: 11, leaseSeconds: 60 }),
    ]);
    const writes = await Promise.allSettled(
      both.map(async (fenced) => {
        if (fenced.status === 'rejected') throw fenced.reason;
        await store.write(key, pattern(512), 0, fenced.value);
      }),
    );
    expect(writes[0]?.status).toBe('rejected');
    for (const write of writes)
      if (write.status === 'rejected') expect(write.reason).toMatchObject({ code: 'FenceLost' });
    expect(await store.info(key)).toMatchObject({ sequenceNumber: 11 });
    // The lower one may have broken the higher one's lease before it saw that it was too low: then nobody writes until somebody fences again.
    const fence = await store.fence(key, { sequenceNumber: 12, leaseSeconds: 60 });
    await store.write(key, pattern(512), 0, fence);
  });

  test('a lease shows, and a released blob can be fenced again', async () => {
    const { store, key, fence } = await fresh();
    expect((await store.info(key))?.leased).toBe(true);
    await store.release(key, fence);
    expect((await store.info(key))?.leased).toBe(false);
    await expect(store.write(key, pattern(512), 0, fence)).rejects.toMatchObject({
      code: 'FenceLost',
    });
    const again = await store.fence(key, { sequenceNumber: 2, leaseSeconds: 15 });
    await store.write(key, pattern(512), 0, again);
  });

  test('a blob grows under its fence, with zeros', async () => {
    const { store, key, fence } = await fresh();
    await store.resize(key, 2 * MIB, fence);
    expect((await store.info(key))?.size).toBe(2 * MIB);
    expect(
      Buffer.from(await store.read(key, { offset: MIB, length: 512 })).every((b) => b === 0),
    ).toBe(true);
  });

  test('a snapshot keeps what was there, whatever is written after it', async () => {
    const { store, key, fence } = await fresh();
    await store.write(key, pattern(KIB), 0, fence);
    const { snapshot } = await store.snapshot(key, { fence, metadata: { lsn: '42' } });
    await store.write(key, Buffer.alloc(512, 1), 0, fence);
    await store.write(key, Buffer.alloc(512, 2), 64 * KIB, fence);
    await store.clear(key, { offset: 512, length: 512 }, fence);
    const kept = await store.read(key, { offset: 0, length: KIB }, { snapshot });
    expect(Buffer.from(kept).equals(pattern(KIB))).toBe(true);
    expect(await collect(store.ranges(key, { snapshot }))).toEqual([{ offset: 0, length: KIB }]);
    expect(await store.info(key, { snapshot })).toMatchObject({
      size: MIB,
      sequenceNumber: 2,
      metadata: { lsn: '42' },
      leased: false,
    });
    expect(await store.info(key, { snapshot: '2020-01-01T00:00:00.0000000Z' })).toBeUndefined();
  });

  test('snapshots are listed oldest first with their metadata, of this blob alone', async () => {
    const { store, key, fence } = await fresh();
    await store.create(`${key}2`, { size: MIB, sequenceNumber: 1 });
    const other = await store.fence(`${key}2`, { sequenceNumber: 2, leaseSeconds: 60 });
    await store.snapshot(`${key}2`, { fence: other, metadata: { lsn: 'other' } });
    const taken: string[] = [];
    for (const lsn of ['1', '2', '3'])
      taken.push((await store.snapshot(key, { fence, metadata: { lsn } })).snapshot);
    const listed = await collect(store.snapshots(key));
    expect(listed).toEqual(
      taken.map((snapshot, index) => ({ snapshot, metadata: { lsn: String(index + 1) } })),
    );
    await store.removeSnapshot(key, taken[1] ?? '');
    expect((await collect(store.snapshots(key))).map((one) => one.metadata.lsn)).toEqual([
      '1',
      '3',
    ]);
  });

  test('a snapshot is copied to a fresh name, once', async () => {
    const { store, key, fence } = await fresh();
    await store.write(key, pattern(KIB), 4 * KIB, fence);
    const { snapshot } = await store.snapshot(key, { fence, metadata: { lsn: '1' } });
    await store.write(key, Buffer.alloc(KIB, 9), 4 * KIB, fence);
    const to = `${key}.copy`;
    expect(await store.startCopy({ from: key, snapshot, to })).toBe('started');
    await expect.poll(() => store.copyState(to), { timeout: 30_000 }).toEqual({ state: 'success' });
    expect(await store.startCopy({ from: key, snapshot, to })).toBe('exists');
    const copied = await store.read(to, { offset: 4 * KIB, length: KIB });
    expect(Buffer.from(copied).equals(pattern(KIB))).toBe(true);
    expect((await store.info(to))?.size).toBe(MIB);
    await expect(
      store.startCopy({ from: key, snapshot: '2020-01-01T00:00:00.0000000Z', to: `${key}.none` }),
    ).rejects.toMatchObject({ code: 'StoreObjectMissing' });
    expect(await store.copyState(key)).toMatchObject({ state: 'failed' });
  });

  test('remove takes a leased blob and its snapshots away', async () => {
    const { store, key, fence } = await fresh();
    await store.snapshot(key, { fence, metadata: {} });
    await store.remove(key);
    expect(await store.info(key)).toBeUndefined();
    expect(await collect(store.snapshots(key))).toEqual([]);
    await store.remove(key);
  });

  test('the URL for an import names the blob and holds no credential', async () => {
    const { store, key } = await fresh();
    const url = new URL(store.url(key));
    expect(url.pathname.endsWith(`/${key}`)).toBe(true);
    expect(url.search).toBe('');
  });
}
