import { describe, expect, vi } from 'vitest';
import { test } from '../../test/fixtures/capturedMachine.ts';
import { LEAF_SIZE } from '../journal/record.ts';

const ALL = 80 * LEAF_SIZE;

describe('what comes before a freeze', () => {
  test('leaves the processors to the machine’s programs, until it is about to freeze', async ({
    largeMachine: machine,
  }) => {
    machine.device.write(0, ALL, 7);
    let asFrozen: boolean | undefined;
    machine.freezer.onFrozen = () => {
      asFrozen = machine.givingWay.at(-1)?.on;
    };
    await machine.barrier();
    expect(machine.givingWay.map(({ on }) => on)).toEqual([true, false]);
    expect(asFrozen).toBe(false);
  });

  test.for([
    { sinceLastMs: undefined, forMs: 4_000 },
    { sinceLastMs: 15_000, forMs: 4_000 },
    { sinceLastMs: 40_000, forMs: 10_000 },
    { sinceLastMs: 600_000, forMs: 30_000 },
  ])(
    'does so for $forMs ms where the last barrier was $sinceLastMs ms ago: a point must not get old for it',
    async ({ sinceLastMs, forMs }, { largeMachine: machine }) => {
      machine.device.write(0, ALL, 7);
      const send = machine.sink.send.bind(machine.sink);
      machine.sink.send = async (batch) => {
        await machine.clock.sleep(14_000);
        await send(batch);
      };
      const begunMs = machine.clock.monotonic();
      await machine.barrier(sinceLastMs === undefined ? {} : { sinceLastMs });
      expect(machine.givingWay.map(({ on }) => on)).toEqual([true, false]);
      const [, end] = machine.givingWay;
      expect(Math.abs((end?.atMs ?? 0) - begunMs - forMs)).toBeLessThan(1_000);
      expect(machine.clock.monotonic() - begunMs).toBeGreaterThan(31_000);
    },
  );

  test('reads the disks in small pieces for as long, and in large ones after that', async ({
    largeMachine: machine,
  }) => {
    machine.device.write(0, ALL, 7);
    let reads: number[] = [];
    machine.device.beforeRead = (bytes) => reads.push(bytes);
    await machine.barrier();
    // All but one, which is to see how long large ones take.
    expect(reads.filter((bytes) => bytes > 2 * LEAF_SIZE)).toHaveLength(1);
    expect(reads.length).toBeGreaterThan(20);
    reads = [];
    machine.device.write(0, ALL, 8);
    await machine.barrier({ final: true });
    expect(new Set(reads)).toEqual(new Set([16 * LEAF_SIZE]));
  });

  test('reads in large pieces once a pass gained too little: small ones may be why', async ({
    largeMachine: machine,
  }) => {
    machine.device.write(0, ALL, 7);
    const sync = machine.freezer.sync.bind(machine.freezer);
    let passes: number[][] = [];
    machine.freezer.sync = async () => {
      await sync();
      passes.push([]);
      if (passes.length === 2) machine.device.write(0, ALL, 8);
    };
    machine.device.beforeRead = (bytes) => passes.at(-1)?.push(bytes);
    vi.spyOn(machine.readRate, 'estimateMs').mockReturnValue(1_200);
    await machine.barrier();
    passes = passes.filter((reads) => reads.length > 0);
    expect(passes[0]).toContain(2 * LEAF_SIZE);
    expect(passes.length).toBeGreaterThan(1);
    expect(new Set(passes[1])).toEqual(new Set([16 * LEAF_SIZE]));
  });

  test('goes at its usual priority again when it fails', async ({ largeMachine: machine }) => {
    machine.device.write(0, ALL, 7);
    machine.sink.failAfter = 1;
    await expect(machine.barrier()).rejects.toThrow('the session ended');
    expect(machine.givingWay.map(({ on }) => on)).toEqual([true, false]);
  });

  test('gives no way when the machine is being left', async ({ largeMachine: machine }) => {
    machine.device.write(0, ALL, 7);
    await machine.barrier({ final: true });
    expect(machine.givingWay).toEqual([]);
  });
});

test('passes that leave three quarters each go on: they come to an end', async ({
  veryLargeMachine: machine,
}) => {
  vi.spyOn(machine.readRate, 'estimateMs').mockImplementation((bytes) => bytes / 5_000);
  machine.frozenBytesMax = 4 << 20;
  const { freezer, device } = machine;
  let leaves = 400;
  let value = 1;
  device.write(0, leaves * LEAF_SIZE, value);
  const sync = freezer.sync.bind(freezer);
  freezer.sync = async () => {
    await sync();
    value += 1;
    leaves = Math.floor(leaves * 0.75);
    device.write(0, leaves * LEAF_SIZE, value);
  };
  await machine.barrier();
  machine.expectCopyToBe(machine.atFreeze);
});
