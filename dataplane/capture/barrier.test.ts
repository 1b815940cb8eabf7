import { describe, expect, vi } from 'vitest';
import { type CapturedMachine, test } from '../../test/fixtures/capturedMachine.ts';
import { LEAF_SIZE } from '../journal/record.ts';
import { runPass } from './pass.ts';

describe('a barrier', () => {
  test('holds the disk as it was while frozen, with the hash of every leaf it touched', async ({
    machine,
  }) => {
    machine.device.write(4096, 8192, 7);
    machine.device.write(10 * LEAF_SIZE, LEAF_SIZE, 9);
    expect((await machine.barrier()).freezeMs).toBeGreaterThan(0);
    machine.expectCopyToBe(machine.atFreeze);
    expect(machine.freezer.frozen).toBe(false);
    expect(machine.tracking.dirtyBytes).toBe(0);
  });

  test('does not carry what is written after the thaw, which stays dirty', async ({ machine }) => {
    machine.device.write(0, 4096, 1);
    await machine.barrier();
    machine.device.write(0, 4096, 2);
    await machine.tracking.absorb();
    expect(machine.sink.copy[0]).toBe(1);
    expect(machine.tracking.dirtyBytes).toBe(4096);
  });

  test('keeps what is written to a former swap area while the barrier is prepared', async ({
    machine,
  }) => {
    machine.freezer.swap = [
      {
        devicePath: machine.device.path,
        offset: 8 * LEAF_SIZE,
        length: 4 * LEAF_SIZE,
        kind: 'partition',
        header: true,
      },
    ];
    await machine.barrier();
    machine.device.write(0, 8192, 1);
    const sync = machine.freezer.sync.bind(machine.freezer);
    let syncs = 0;
    machine.freezer.sync = async () => {
      await sync();
      if (++syncs < 2) return;
      // Swapped off, and a filesystem made there.
      machine.freezer.swap = [];
      machine.device.write(9 * LEAF_SIZE, LEAF_SIZE, 7);
    };
    await machine.barrier();
    machine.expectCopyToBe(machine.atFreeze);
  });

  test('reads again what is discarded while it is frozen', async ({ machine }) => {
    machine.device.write(0, 2 * LEAF_SIZE, 5);
    let reads = 0;
    machine.freezer.onFrozen = () => {
      machine.device.beforeRead = () => {
        reads += 1;
        if (reads === 1) machine.device.write(LEAF_SIZE, LEAF_SIZE, 0, 'discard');
      };
    };
    // Little is dirty, so all of it is read while frozen.
    await machine.barrier();
    machine.expectCopyToBe(machine.device.bytes);
  });

  test('reads a RAID’s own record again, which the kernel writes once nobody else does', async ({
    machine,
  }) => {
    machine.freezer.raidRecords = [{ devicePath: '/dev/fake', offset: 0, length: LEAF_SIZE }];
    machine.device.write(5 * LEAF_SIZE, 4096, 5);
    let reads = 0;
    machine.freezer.onFrozen = () => {
      machine.device.beforeRead = () => {
        reads += 1;
        if (reads === 1) machine.device.write(4096, 512, 8);
      };
    };
    await machine.barrier();
    expect(machine.device.bytes[4096]).toBe(8);
    machine.expectCopyToBe(machine.device.bytes);
  });

  test('keeps no memory for what reads as zero', async ({ machine }) => {
    machine.frozenBytesMax = LEAF_SIZE;
    machine.device.write(0, LEAF_SIZE, 9);
    machine.device.write(LEAF_SIZE, 30 * LEAF_SIZE, 0, 'discard');
    await machine.barrier();
    machine.expectCopyToBe(machine.device.bytes);
  });
});

describe('hooks', () => {
  const hooks = { directory: '/etc/hooks', timeoutSeconds: 5 };

  test('run around the freeze of an application-consistent barrier alone', async ({ machine }) => {
    await machine.barrier({ consistency: 'App', hooks });
    expect(machine.hookCalls).toEqual(['pre', 'post']);
    await machine.barrier({ consistency: 'Crash', hooks });
    expect(machine.hookCalls).toEqual(['pre', 'post']);
  });

  test('that fail before make no point, and those after run all the same', async ({ machine }) => {
    machine.hookFailures = [{ hook: '10-database', reason: 'it ended with 3' }];
    await expect(machine.barrier({ consistency: 'App', hooks })).rejects.toMatchObject({
      code: 'HookFailed',
      message: expect.stringContaining('10-database failed: it ended with 3'),
    });
    expect(machine.hookCalls).toEqual(['pre', 'post']);
    expect(machine.freezer.calls).not.toContain('freeze');
  });
});

describe('the last barrier of a planned failover', () => {
  test('stays frozen until the vault has it, and is then held', async ({ machine }) => {
    machine.device.write(0, 4096, 5);
    let frozenThen = false;
    await machine.barrier({ final: true }, async () => {
      frozenThen = machine.freezer.frozen;
    });
    expect(frozenThen).toBe(true);
    expect(machine.freezer.calls.at(-1)).toBe('hold');
    machine.expectCopyToBe(machine.device.bytes);
  });

  test('thaws when the vault does not have it by the deadline', async ({ machine }) => {
    await expect(
      machine.barrier({ final: true }, () => new Promise(() => undefined)),
    ).rejects.toMatchObject({ code: 'FinalTimedOut' });
    expect(machine.freezer.frozen).toBe(false);
  });
});

describe('swap', () => {
  test('has its header copied and its body zero, and its writes are no dirt', async ({
    machine,
  }) => {
    machine.freezer.swap = [
      {
        devicePath: '/dev/fake',
        offset: LEAF_SIZE,
        length: 4 * LEAF_SIZE,
        kind: 'partition',
        header: true,
      },
    ];
    machine.device.write(LEAF_SIZE, 4 * LEAF_SIZE, 3);
    await machine.barrier();
    const expected = machine.device.bytes.slice().fill(0, LEAF_SIZE + 4096, 5 * LEAF_SIZE);
    machine.expectCopyToBe(expected);
    machine.device.write(2 * LEAF_SIZE, 4096, 4);
    await machine.tracking.absorb();
    expect(machine.tracking.dirtyBytes).toBe(0);
    machine.freezer.swap = [];
    await machine.barrier();
    machine.expectCopyToBe(machine.device.bytes);
  });
});

test('a pass sends a leaf again although its hash did not change: the hash may have covered blocks still to come', async ({
  machine,
}) => {
  machine.device.write(0, 4096, 1);
  await machine.tracking.absorb();
  let once = true;
  machine.device.beforeRead = () => {
    // Written after the events were taken in, before the leaf is read: the first hash covers it, the first record does not carry it.
    if (once) machine.device.write(4096, 4096, 2);
    once = false;
  };
  await runPass([machine.disk], machine);
  expect(machine.sink.copy[4096]).toBe(0);
  await machine.tracking.absorb();
  await runPass([machine.disk], machine);
  machine.expectCopyToBe(machine.device.bytes);
});

describe('a machine that writes everything again while a pass reads it', () => {
  /** What the passes before a freeze read, in disks. */
  function readBeforeFreeze({ device, freezer }: CapturedMachine): () => number {
    let bytes = 0;
    const read = device.read.bind(device);
    device.read = async (into, offset) => {
      if (!freezer.frozen) {
        bytes += into.length;
        if (offset === 0) device.write(0, device.bytes.length, (bytes % 250) + 1);
      }
      return await read(into, offset);
    };
    return () => bytes / device.bytes.length;
  }

  test('is frozen once two passes were in vain, if the rest can be read in time', async ({
    largeMachine: machine,
  }) => {
    const read = readBeforeFreeze(machine);
    vi.spyOn(machine.readRate, 'estimateMs').mockReturnValue(900);
    machine.device.write(0, machine.device.bytes.length, 1);
    await machine.barrier();
    machine.expectCopyToBe(machine.atFreeze);
    // Two passes, and after each a look at how fast the disk is.
    expect(read()).toBe(4);
  });

  test('is not frozen while the rest would take too long', async ({ largeMachine: machine }) => {
    readBeforeFreeze(machine);
    vi.spyOn(machine.readRate, 'estimateMs').mockReturnValue(1_300);
    machine.device.write(0, machine.device.bytes.length, 1);
    await expect(machine.barrier()).rejects.toMatchObject({ code: 'BehindTheLink' });
    expect(machine.freezer.calls).not.toContain('freeze');
  });

  test('is not frozen while the rest would not fit into memory', async ({
    largeMachine: machine,
  }) => {
    const read = readBeforeFreeze(machine);
    vi.spyOn(machine.readRate, 'estimateMs').mockReturnValue(100);
    machine.frozenBytesMax = machine.device.bytes.length;
    machine.device.write(0, machine.device.bytes.length, 1);
    await expect(machine.barrier()).rejects.toMatchObject({ code: 'BehindTheLink' });
    expect(machine.freezer.calls).not.toContain('freeze');
    // Four passes, and after each a look: it does not send everything again and again.
    expect(read()).toBe(8);
  });
});

test('a machine that discards everything again while a pass reads it is frozen: zeros take no memory', async ({
  largeMachine: machine,
}) => {
  const { device, freezer } = machine;
  const read = device.read.bind(device);
  device.read = async (into, offset) => {
    if (!freezer.frozen && offset === 0) device.write(0, device.bytes.length, 0, 'discard');
    return await read(into, offset);
  };
  vi.spyOn(machine.readRate, 'estimateMs').mockReturnValue(100);
  machine.frozenBytesMax = device.bytes.length / 2;
  device.write(0, device.bytes.length, 1);
  await machine.barrier();
  machine.expectCopyToBe(machine.atFreeze);
});

describe('a machine that writes half as fast as the link carries', () => {
  /** Each pass is followed by half of what it sent, and takes so long. */
  function slowLink({ clock, device, freezer, sink }: CapturedMachine, passMs: number) {
    let sent = 0;
    let leaves = device.bytes.length / LEAF_SIZE;
    const send = sink.send.bind(sink);
    sink.send = async (batch) => {
      if (!freezer.frozen) sent += batch.count;
      await send(batch);
    };
    const sync = freezer.sync.bind(freezer);
    freezer.sync = async () => {
      await sync();
      if (sent === 0) return;
      sent = 0;
      await clock.sleep(passMs);
      leaves = Math.ceil(leaves / 2);
      device.write(0, leaves * LEAF_SIZE, leaves);
    };
    return () => leaves;
  }

  test('is frozen with little left while its passes are short', async ({ veryLargeMachine }) => {
    const machine = veryLargeMachine;
    const left = slowLink(machine, 1_000);
    machine.device.write(0, machine.device.bytes.length, 250);
    await machine.barrier();
    machine.expectCopyToBe(machine.atFreeze);
    expect(left() * LEAF_SIZE).toBeLessThanOrEqual(4 << 20);
  });

  test('is not kept waiting for that by long ones: what can be read in a short freeze is', async ({
    veryLargeMachine,
  }) => {
    const machine = veryLargeMachine;
    const left = slowLink(machine, 6_000);
    machine.device.write(0, machine.device.bytes.length, 250);
    await machine.barrier();
    machine.expectCopyToBe(machine.atFreeze);
    expect(left()).toBe(machine.device.bytes.length / LEAF_SIZE / 2);
  });
});
