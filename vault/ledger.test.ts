import { expect, test } from 'vitest';
import { StoreError } from '../platform/storeErrors.ts';
import { ManualClock } from '../test/fakes/manualClock.ts';
import { MemoryObjectStore } from '../test/fakes/memoryObjectStore.ts';
import { failoverEntry } from '../test/fixtures/failoverEntry.ts';
import { vaultLayout } from './layout.ts';
import { LedgerEntry } from './ledger.ts';

const begun = {
  steps: [{ name: 'CreateVm' as const, state: 'Running' as const, startedAt: 1, attempts: 2 }],
};

test('of two runners that write the very same, one goes on and the other stops', async () => {
  const objects = await ledger();
  const [one, other] = await both(objects);
  await one?.update(begun);
  await expect(other?.update(begun)).rejects.toMatchObject({ code: 'LedgerConflict' });
});

test('a write whose answer was lost is taken for one’s own, and the next one follows it', async () => {
  const objects = await ledger();
  const [one, other] = await both(objects);
  const replace = objects.replace.bind(objects);
  objects.replace = async (...args) => {
    objects.replace = replace;
    await replace(...args);
    return { outcome: 'conflict' };
  };
  await one?.update(begun);
  await one?.update({ outcome: 'FailedOver' });
  await expect(other?.update(begun)).rejects.toMatchObject({ code: 'LedgerConflict' });
  expect((await LedgerEntry.read(objects, 'move'))?.document.outcome).toBe('FailedOver');
});

test('an acceptance whose answer was lost adopts its own entry when it is tried again', async () => {
  const objects = new MemoryObjectStore({ clock: new ManualClock() });
  objects.fault = (operation) =>
    operation === 'putIfAbsent'
      ? { when: 'after', error: new StoreError('VaultUnreachable', 'no answer') }
      : undefined;
  await expect(LedgerEntry.accept(objects, failoverEntry({ uid: 'first try' }))).rejects.toThrow();
  objects.fault = undefined;
  const entry = await LedgerEntry.accept(objects, failoverEntry({ uid: 'second try' }));
  expect(entry.document.uid).toBe('first try');
});

test('an entry that was copied under another name is refused', async () => {
  const objects = await ledger();
  const copy = (await objects.get(vaultLayout.failover('move')))?.body ?? new Uint8Array();
  await objects.put(vaultLayout.failover('copy'), copy);
  await expect(LedgerEntry.read(objects, 'copy')).rejects.toMatchObject({
    code: 'VaultDocumentInvalid',
  });
});

async function ledger(): Promise<MemoryObjectStore> {
  const objects = new MemoryObjectStore({ clock: new ManualClock() });
  await LedgerEntry.accept(objects, failoverEntry());
  return objects;
}

async function both(objects: MemoryObjectStore) {
  return [
    await LedgerEntry.read(objects, 'move', { writer: 'a'.repeat(16) }),
    await LedgerEntry.read(objects, 'move', { writer: 'b'.repeat(16) }),
  ];
}
