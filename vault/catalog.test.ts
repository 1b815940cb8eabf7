import { beforeEach, expect, test } from 'vitest';
import { StoreError } from '../platform/storeErrors.ts';
import { collect } from '../test/conformance/objectStore.ts';
import { ManualClock } from '../test/fakes/manualClock.ts';
import { MemoryObjectStore } from '../test/fakes/memoryObjectStore.ts';
import { Catalog } from './catalog.ts';
import type { CatalogDocument } from './documents/catalog.ts';

const clock = new ManualClock();
let store: MemoryObjectStore;
let catalog: Catalog;

beforeEach(() => {
  store = new MemoryObjectStore({ clock });
  catalog = new Catalog({ store });
});

const machine = (digit: string): CatalogDocument => ({
  machineId: digit.repeat(32),
  name: `vm-${digit}`,
  namespace: 'default',
  createdAt: 1,
  writerEpoch: 1,
  disks: [],
  dataKey: [],
  activeSide: 'Source',
  policy: { name: 'gold', retentionSeconds: 60 },
  target: { size: 'Standard_D2s_v5' },
});

test('a machine is created once; who comes later sees what is there', async () => {
  expect(await catalog.create(machine('1'))).toMatchObject({ outcome: 'created' });
  expect(await catalog.create({ ...machine('1'), name: 'other' })).toMatchObject({
    outcome: 'exists',
    document: { name: 'vm-1' },
  });
  expect(await catalog.read('2'.repeat(32))).toBeUndefined();
});

test('concurrent changes all arrive', async () => {
  await catalog.create(machine('1'));
  const raise = () =>
    catalog.update('1'.repeat(32), (current) => ({
      ...current,
      writerEpoch: current.writerEpoch + 1,
    }));
  await Promise.all(Array.from({ length: 8 }, raise));
  expect((await catalog.read('1'.repeat(32)))?.document.writerEpoch).toBe(9);
});

test('a change that has nothing to do writes nothing', async () => {
  await catalog.create(machine('1'));
  const before = store.log.length;
  expect(await catalog.update('1'.repeat(32), () => undefined)).toMatchObject({ changed: false });
  expect(store.log.slice(before).map((one) => one.operation)).toEqual(['get']);
  expect(await catalog.update('9'.repeat(32), (current) => current)).toBeUndefined();
});

test('a change that others undo each time ends with an error, not in a loop', async () => {
  await catalog.create(machine('1'));
  store.interleave = async (operation, key) => {
    if (operation === 'replace')
      await store.put(key, (await store.get(key))?.body ?? new Uint8Array());
  };
  await expect(
    catalog.update('1'.repeat(32), (current) => ({ ...current, writerEpoch: 2 })),
  ).rejects.toMatchObject({ code: 'VaultDocumentContended' });
});

test('a lost answer of a change is not lost itself', async () => {
  await catalog.create(machine('1'));
  store.fault = (operation) =>
    operation === 'replace'
      ? { when: 'after', error: new StoreError('VaultUnreachable', 'planned') }
      : undefined;
  const change = (current: CatalogDocument) =>
    current.writerEpoch === 5 ? undefined : { ...current, writerEpoch: 5 };
  await expect(catalog.update('1'.repeat(32), change)).rejects.toThrow();
  store.fault = undefined;
  expect(await catalog.update('1'.repeat(32), change)).toMatchObject({
    changed: false,
    document: { writerEpoch: 5 },
  });
});

test('the list holds every machine, and no other file; a damaged one is an error', async () => {
  for (const digit of ['3', '1', '2']) await catalog.create(machine(digit));
  await store.put('catalog/README.txt', new Uint8Array(1));
  await store.put(`catalog/${'4'.repeat(32)}/x.json`, new Uint8Array(1));
  expect((await collect(catalog.list())).map(({ document }) => document.name)).toEqual([
    'vm-1',
    'vm-2',
    'vm-3',
  ]);
  await store.put(`catalog/${'2'.repeat(32)}.json`, new Uint8Array(1));
  await expect(collect(catalog.list())).rejects.toMatchObject({ code: 'VaultDocumentInvalid' });
});
