import { describe, expect, test } from 'vitest';
import { StoreError } from '../../platform/storeErrors.ts';
import { objectStoreConformance } from '../conformance/objectStore.ts';
import { pageBlobStoreConformance } from '../conformance/pageBlobStore.ts';
import { ManualClock } from './manualClock.ts';
import { MemoryObjectStore } from './memoryObjectStore.ts';
import { MemoryPageBlobStore } from './memoryPageBlobStore.ts';

const clock = new ManualClock();

describe('MemoryObjectStore', () => {
  const shared = new MemoryObjectStore({ clock });
  objectStoreConformance(() => shared);

  test('a lost answer leaves the effect, an unsent request does not', async () => {
    const store = new MemoryObjectStore({ clock });
    const error = new StoreError('VaultUnreachable', 'planned');
    store.fault = () => ({ when: 'after', error });
    await expect(store.put('a', new Uint8Array(1))).rejects.toBe(error);
    store.fault = () => ({ when: 'before', error });
    await expect(store.put('b', new Uint8Array(1))).rejects.toBe(error);
    expect(store.keys()).toEqual(['a']);
  });
});

describe('MemoryPageBlobStore', () => {
  const shared = new MemoryPageBlobStore({ clock });
  pageBlobStoreConformance(() => shared);

  test('an expired lease writes nothing, and can be renewed until somebody takes another', async () => {
    const store = new MemoryPageBlobStore({ clock });
    await store.create('a', { size: 512, sequenceNumber: 0 });
    const fence = await store.fence('a', { sequenceNumber: 1, leaseSeconds: 60 });
    await clock.advance(60_000);
    await expect(store.write('a', new Uint8Array(512), 0, fence)).rejects.toMatchObject({
      code: 'FenceLost',
    });
    await store.renew('a', fence);
    await store.write('a', new Uint8Array(512), 0, fence);
  });
});
