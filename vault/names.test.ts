import { beforeEach, describe, expect, test } from 'vitest';
import { StoreError } from '../platform/storeErrors.ts';
import { ManualClock } from '../test/fakes/manualClock.ts';
import { MemoryObjectStore } from '../test/fakes/memoryObjectStore.ts';
import { NameClaims, NameTakenError } from './names.ts';

const clock = new ManualClock();
const ours = { installationId: '1'.repeat(32), namespace: 'shop', uid: 'uid-1' };
const theirs = { installationId: '2'.repeat(32), namespace: 'shop', uid: 'uid-2' };
const machine = { kind: 'machine' as const, name: 'db-1' };
const id = (digit: string) => digit.repeat(32);
let store: MemoryObjectStore;
let names: NameClaims;

beforeEach(() => {
  store = new MemoryObjectStore({ clock });
  names = new NameClaims({ store, clock });
});

describe('claiming a name', () => {
  test('the first has it, and keeps the machineId of its first claim', async () => {
    expect(await names.claim(machine, ours, id('a'))).toMatchObject({
      outcome: 'ours',
      claim: { machineId: id('a') },
    });
    expect(await names.claim(machine, ours, id('b'))).toMatchObject({
      outcome: 'ours',
      claim: { machineId: id('a') },
    });
    const result = await names.claim(machine, theirs, id('c'));
    expect(result).toMatchObject({ outcome: 'taken', holder: ours });
    if (result.outcome === 'taken')
      expect(new NameTakenError(result.holder).message).toContain('shop/db-1');
  });

  test('a lost answer is ours when we ask again', async () => {
    store.fault = () => ({ when: 'after', error: new StoreError('VaultUnreachable', 'planned') });
    await expect(names.claim(machine, ours, id('a'))).rejects.toMatchObject({
      code: 'VaultUnreachable',
    });
    store.fault = undefined;
    expect(await names.claim(machine, ours, id('b'))).toMatchObject({
      outcome: 'ours',
      claim: { machineId: id('a') },
    });
  });

  test('kinds are apart, and any other uid, namespace or installation is another', async () => {
    await names.claim({ kind: 'processserver', name: 'db-1' }, theirs);
    expect((await names.claim(machine, ours, id('a'))).outcome).toBe('ours');
    for (const other of [
      { ...ours, uid: 'uid-9' },
      { ...ours, namespace: 'other' },
      { ...ours, installationId: id('9') },
    ])
      expect((await names.claim(machine, other, id('b'))).outcome).toBe('taken');
  });

  test('of many at once, one has it', async () => {
    const results = await Promise.all(
      Array.from({ length: 6 }, (_, index) =>
        names.claim(machine, { ...ours, uid: `uid-${index}` }, id('a')),
      ),
    );
    expect(results.filter((one) => one.outcome === 'ours')).toHaveLength(1);
  });

  test('a claim that was altered is refused, not overwritten', async () => {
    await store.put(
      'control/names/machine/db-1.json',
      new TextEncoder().encode('{"kind":"machine"}'),
    );
    await expect(names.claim(machine, ours, id('a'))).rejects.toMatchObject({
      code: 'VaultDocumentInvalid',
    });
  });
});

describe('giving a name back', () => {
  test('only the holder can, and then it is free', async () => {
    await names.claim(machine, ours, id('a'));
    expect(await names.release(machine, theirs)).toBe('taken');
    expect(await names.release(machine, ours)).toBe('released');
    expect(await names.release(machine, ours)).toBe('missing');
    expect((await names.claim(machine, theirs, id('b'))).outcome).toBe('ours');
  });

  test('a claim that changes hands while it is released stays', async () => {
    await names.claim(machine, ours, id('a'));
    store.interleave = async (operation) => {
      if (operation !== 'remove') return;
      store.interleave = undefined;
      await names.transfer(machine, { from: ours, to: theirs });
    };
    expect(await names.release(machine, ours)).toBe('taken');
    expect(await names.holder(machine)).toMatchObject(theirs);
  });
});

describe('handing a name on', () => {
  test('from the holder we saw, keeping the machineId, once or twice', async () => {
    await names.claim(machine, ours, id('a'));
    for (const _ of ['once', 'again'])
      expect(await names.transfer(machine, { from: ours, to: theirs })).toMatchObject({
        outcome: 'ours',
        claim: { ...theirs, machineId: id('a') },
      });
    expect(
      await names.transfer(machine, { from: ours, to: { ...ours, uid: 'new' } }),
    ).toMatchObject({ outcome: 'taken', holder: theirs });
    expect(
      await names.transfer({ kind: 'machine', name: 'none' }, { from: ours, to: theirs }),
    ).toEqual({ outcome: 'missing' });
  });
});
