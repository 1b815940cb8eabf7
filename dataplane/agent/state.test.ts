import { expect, test } from 'vitest';
import { MemoryDisk } from '../../test/fakes/memoryDisk.ts';
import { AgentStateStore, decodeState, encodeState, type SavedState } from './state.ts';

const state: SavedState = {
  machineId: 'ab'.repeat(16),
  bootId: 'boot',
  cacheId: 'cache',
  acknowledgedBarrierLsn: 2n ** 60n,
  resync: { reason: 'Manual', startedMs: 5, beginLsn: 7n, bytesSent: 9, cursors: [[0, 100]] },
  scrub: { startedMs: 6, disk: 3, leaf: 32, leavesCompared: 16, leavesPassedOver: 16 },
  disks: [
    {
      index: 3,
      device: '/dev/sda',
      identity: { devT: 8 << 20, diskSequence: 12n, sizeBytes: 1 << 30 },
      account: { traced: 99, low: -5 },
      mark: 11n,
      zeroed: [{ offset: 4096, length: 65536 }],
      raidRecords: [{ offset: 0, length: 1 << 20 }],
      dirty: new Uint8Array([1, 2, 3]),
      sent: new Uint8Array([]),
      sentBefore: new Uint8Array([4]),
    },
  ],
};

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
