import { beforeEach, describe, expect, test } from 'vitest';
import { StoreError } from '../platform/storeErrors.ts';
import { ManualClock } from '../test/fakes/manualClock.ts';
import { MemoryObjectStore } from '../test/fakes/memoryObjectStore.ts';
import { VaultControl } from './control.ts';

const clock = new ManualClock();
let store: MemoryObjectStore;
let first: VaultControl;
let second: VaultControl;

beforeEach(() => {
  store = new MemoryObjectStore({ clock });
  const control = (digit: string) =>
    new VaultControl(
      { store, clock },
      { installationId: digit.repeat(32), holder: `cluster-${digit}` },
    );
  first = control('1');
  second = control('2');
});

const lostAnswer = (operation: string) => {
  let lost = false;
  store.fault = (asked) => {
    if (asked !== operation || lost) return undefined;
    lost = true;
    return { when: 'after', error: new StoreError('VaultUnreachable', 'planned') };
  };
};

describe('taking control', () => {
  test('the first takes epoch 1, and everybody else stands by', async () => {
    expect(await first.state()).toEqual({ state: 'Standby', controller: undefined });
    expect(await first.takeFirst()).toEqual({ state: 'InControl', controllerEpoch: 1 });
    expect(await second.takeFirst()).toMatchObject({
      state: 'Standby',
      controller: { holder: 'cluster-1' },
    });
    expect(await first.takeFirst()).toEqual({ state: 'InControl', controllerEpoch: 1 });
  });

  test('of two first ones, one wins', async () => {
    const states = await Promise.all([first.takeFirst(), second.takeFirst()]);
    expect(states.map((one) => one.state).sort()).toEqual(['InControl', 'Standby']);
  });

  test('a takeover from the present epoch raises it; the same manifest again does nothing', async () => {
    await first.takeFirst();
    expect(await second.takeControl({ fromEpoch: 1 })).toEqual({
      state: 'InControl',
      controllerEpoch: 2,
    });
    expect(await second.takeControl({ fromEpoch: 1 })).toEqual({
      state: 'InControl',
      controllerEpoch: 2,
    });
    // The old cluster comes back with its own manifest of long ago.
    expect(await first.takeControl({ fromEpoch: 1 })).toMatchObject({
      state: 'Standby',
      controller: { controllerEpoch: 2 },
    });
    expect(await first.takeControl({ fromEpoch: 2 })).toEqual({
      state: 'InControl',
      controllerEpoch: 3,
    });
    expect(await second.takeControl({ fromEpoch: 1 })).toMatchObject({ state: 'Standby' });
  });

  test('an epoch that is not reached yet, or that was never there, takes nothing', async () => {
    expect(await second.takeControl({ fromEpoch: 1 })).toEqual({
      state: 'Standby',
      controller: undefined,
    });
    await first.takeFirst();
    for (const fromEpoch of [0, 2, 100])
      expect(await second.takeControl({ fromEpoch })).toMatchObject({ state: 'Standby' });
  });

  test('epoch 0 is that of a vault nobody controls', async () => {
    expect(await second.takeControl({ fromEpoch: 0 })).toEqual({
      state: 'InControl',
      controllerEpoch: 1,
    });
  });

  test('a lost answer leaves no doubt who is in control', async () => {
    lostAnswer('putIfAbsent');
    await expect(first.takeFirst()).rejects.toMatchObject({ code: 'VaultUnreachable' });
    expect(await first.takeFirst()).toEqual({ state: 'InControl', controllerEpoch: 1 });
    lostAnswer('replace');
    await expect(second.takeControl({ fromEpoch: 1 })).rejects.toMatchObject({
      code: 'VaultUnreachable',
    });
    expect(await second.takeControl({ fromEpoch: 1 })).toEqual({
      state: 'InControl',
      controllerEpoch: 2,
    });
  });

  test('of many that take over from one epoch, one wins', async () => {
    await first.takeFirst();
    const others = ['3', '4', '5', '6'].map(
      (digit) =>
        new VaultControl({ store, clock }, { installationId: digit.repeat(32), holder: digit }),
    );
    const states = await Promise.all(others.map((one) => one.takeControl({ fromEpoch: 1 })));
    expect(states.filter((one) => one.state === 'InControl')).toEqual([
      { state: 'InControl', controllerEpoch: 2 },
    ]);
  });
});

describe('being in control', () => {
  test('is read from the vault each time', async () => {
    await first.takeFirst();
    await first.assertInControl(1);
    await second.takeControl({ fromEpoch: 1 });
    await expect(first.assertInControl(1)).rejects.toMatchObject({
      code: 'NotInControl',
      message: expect.stringContaining('cluster-2'),
    });
    await second.assertInControl(2);
  });

  test('an epoch of its own before the present one is not enough', async () => {
    await first.takeFirst();
    await second.takeControl({ fromEpoch: 1 });
    await first.takeControl({ fromEpoch: 2 });
    await expect(first.assertInControl(1)).rejects.toMatchObject({ code: 'NotInControl' });
    await first.assertInControl(3);
  });

  test('a vault without a controller, and one that does not answer, stop everything', async () => {
    await expect(first.assertInControl(1)).rejects.toMatchObject({ code: 'NotInControl' });
    await first.takeFirst();
    store.fault = () => ({ when: 'before', error: new StoreError('VaultUnreachable', 'planned') });
    await expect(first.assertInControl(1)).rejects.toMatchObject({ code: 'VaultUnreachable' });
  });
});
