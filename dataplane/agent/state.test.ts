import fc from 'fast-check';
import { expect, test } from 'vitest';
import { z } from 'zod';
import { MemoryDisk } from '../../test/fakes/memoryDisk.ts';
import { savedState as state } from '../../test/fixtures/savedState.ts';
import { standsHostileBytes } from '../../test/fuzz/hostile.ts';
import { expectSame } from '../../test/fuzz/target.ts';
import { agentFiles, agentState } from '../../test/fuzz/targets/agent.ts';
import { valuesOf } from '../../test/fuzz/values.ts';
import {
  AgentStateStore,
  decodeState,
  encodeState,
  type SavedState,
  savedStateSchema,
} from './state.ts';

test('what is saved is what is loaded', () => {
  const copy = decodeState(encodeState(state));
  expect(copy).toMatchObject({
    ...state,
    disks: [
      {
        ...state.disks[0],
        dirty: expect.anything(),
        sent: expect.anything(),
        sentBefore: expect.anything(),
      },
    ],
  });
  expect([...(copy.disks[0]?.dirty ?? [])]).toEqual([1, 2, 3]);
  expect([...(copy.disks[0]?.sentBefore ?? [])]).toEqual([4]);
});

test('a state that was cut or flipped anywhere is no state, never a wrong one', () => {
  const bytes = encodeState(state);
  for (let at = 0; at < bytes.length; at += 1) {
    const flipped = bytes.slice();
    flipped[at] = (flipped[at] ?? 0) ^ 0x10;
    expect(() => decodeState(flipped)).toThrow();
    expect(() => decodeState(bytes.subarray(0, at))).toThrow();
  }
});

test('any state comes back with its bitmaps', () => {
  const bytes = fc.uint8Array({ maxLength: 20 });
  fc.assert(
    fc.property(
      valuesOf(savedStateSchema),
      fc.infiniteStream(fc.tuple(bytes, bytes, bytes)),
      (json, bitmaps) => {
        const whole = json as SavedState;
        const disks = whole.disks.map((disk) => {
          const [dirty, sent, sentBefore] = bitmaps.next().value;
          return { ...disk, dirty, sent, sentBefore };
        });
        const saved: SavedState = { ...whole, disks };
        expectSame('a state', plain(decodeState(encodeState(saved))), plain(saved));
      },
    ),
    { numRuns: 100 },
  );
});

test('a state of any bytes, also with a right checksum, is a state or AgentStateInvalid', async () => {
  await standsHostileBytes(agentState);
});

test('identity, request, boot and endpoints of any bytes are read or refused, and never throw anything else', async () => {
  await standsHostileBytes(agentFiles);
});

test('the highest LSN given survives on its own', async () => {
  const disk = new MemoryDisk();
  const store = new AgentStateStore(disk);
  expect(await store.loadCaptured()).toBe(0n);
  await store.saveCaptured(5n);
  await store.saveCaptured(2n ** 61n);
  await store.close();
  expect(await new AgentStateStore(disk).loadCaptured()).toBe(2n ** 61n);
  expect(await new AgentStateStore(disk).load()).toBeUndefined();
});

test('saving from two places at once loses neither, and the later one stays', async () => {
  const disk = new MemoryDisk();
  const store = new AgentStateStore(disk);
  await Promise.all(
    [1n, 2n, 3n].map((acknowledgedBarrierLsn) => store.save({ ...state, acknowledgedBarrierLsn })),
  );
  expect((await store.load())?.acknowledgedBarrierLsn).toBe(3n);
});

/** In one order, without the lengths that the file has beside. */
function plain(state: SavedState): unknown {
  const { disks, ...rest } = state;
  return [
    z.encode(savedStateSchema.omit({ disks: true }), rest),
    disks.map((disk) => [disk.index, disk.mark, disk.dirty, disk.sent, disk.sentBefore]),
  ];
}
