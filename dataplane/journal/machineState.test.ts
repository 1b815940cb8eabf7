import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { MemoryDisk } from '../../test/fakes/memoryDisk.ts';
import { standsHostileBytes } from '../../test/fuzz/hostile.ts';
import { machineState } from '../../test/fuzz/targets/cache.ts';
import { valuesOf } from '../../test/fuzz/values.ts';
import {
  type MachineState,
  machineStateSchema,
  readMachineState,
  writeMachineState,
} from './machineState.ts';

const machineId = '0123456789abcdef0123456789abcdef';
const state: MachineState = {
  version: 1,
  machineId,
  incarnation: 12345n,
  sinceFile: 1,
  writerEpoch: 2,
  phase: 'Ready',
  uploaded: { seq: 7, digest: 'ab'.repeat(32), lsn: 90n },
  table: { lsn: 91n, resync: { required: false } },
  disks: [{ index: 0, name: 'sda', sizeBytes: 1 << 20 }],
};

describe("a machine's state on the cache disk", () => {
  test('reads back', async () => {
    const disk = new MemoryDisk();
    await disk.makeDirectory(`machines/${machineId}`);
    expect(await readMachineState(disk, machineId)).toBe('missing');
    await writeMachineState(disk, state);
    expect(await readMachineState(disk, machineId)).toEqual(state);
  });

  test('of any kind reads back', async () => {
    await fc.assert(
      fc.asyncProperty(valuesOf(machineStateSchema), async (value) => {
        const disk = new MemoryDisk();
        const any = value as MachineState;
        await disk.makeDirectory(`machines/${any.machineId}`);
        await writeMachineState(disk, any);
        expect(await readMachineState(disk, any.machineId)).toEqual(any);
      }),
      { numRuns: 50 },
    );
  });

  test('of any bytes, also with a right checksum, is a state or unreadable', async () => {
    await standsHostileBytes(machineState);
  });

  test('with any bit flipped is unreadable, and never another state', async () => {
    const disk = new MemoryDisk();
    await disk.makeDirectory(`machines/${machineId}`);
    await writeMachineState(disk, state);
    const path = `machines/${machineId}/state.json`;
    const size = disk.files().find((file) => file.path === path)?.size ?? 0;
    expect(size).toBeGreaterThan(100);
    for (let offset = 0; offset < size; offset += 1)
      for (let bit = 0; bit < 8; bit += 1) {
        disk.flipBit(path, { offset, bit });
        expect(await readMachineState(disk, machineId)).toBe('unreadable');
        disk.flipBit(path, { offset, bit });
      }
    expect(await readMachineState(disk, machineId)).toEqual(state);
  });
});
