import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { ManualClock } from '../../test/fakes/manualClock.ts';
import { silentLogger } from '../../test/fakes/silentLogger.ts';
import { FakeDisk, FakeFreezer, FakeTracer } from '../../test/fakes/sourceMachine.ts';
import { decodeRecord, LEAF_SIZE, RecordKind } from '../journal/record.ts';
import { type BarrierRequest, runBarrier } from './barrier.ts';
import { leafHash } from './batch.ts';
import { CapturedDisk } from './disk.ts';
import { runPass } from './pass.ts';
import { ReadRate } from './readRate.ts';
import type { RecordSink } from './sink.ts';
import { Tracking } from './tracking.ts';

const SIZE = 64 * LEAF_SIZE;

/** Applies what it is sent to a copy of the disk. */
class CopySink implements RecordSink {
  nextLsn = 1n;
  readonly batchBytes = 256 << 10;
  readonly copy = new Uint8Array(SIZE);
  readonly hashes = new Map<number, Uint8Array>();
  failAfter = Number.POSITIVE_INFINITY;

  async send(batch: { records: Uint8Array; count: number }): Promise<void> {
    if (this.failAfter-- <= 0) throw new Error('the session ended');
    let offset = 0;
    while (offset < batch.records.length) {
      const { record, next } = decodeRecord(batch.records, offset);
      offset = next;
      if (record.kind !== RecordKind.Data) continue;
      let from = 0;
      for (let block = 0; block < 16; block += 1) {
        if ((record.blockMask & (1 << block)) === 0) continue;
        const zero = (record.zeroMask & (1 << block)) !== 0;
        const at = record.leaf * LEAF_SIZE + block * 4096;
        if (zero) this.copy.fill(0, at, at + 4096);
        else this.copy.set(record.blocks.subarray(from, from + 4096), at);
        if (!zero) from += 4096;
      }
      this.hashes.set(record.leaf, new Uint8Array(record.leafHash));
    }
    this.nextLsn += BigInt(batch.count);
  }

  async ask(): Promise<Uint8Array> {
    throw new Error('no resync here');
  }
}

let clock: ManualClock;
let device: FakeDisk;
let tracer: FakeTracer;
let freezer: FakeFreezer;
let disk: CapturedDisk;
let tracking: Tracking;
let sink: CopySink;
let hookCalls: string[];
let hookFailures: { hook: string; reason: string }[];
let running: boolean;
let atFreeze: Uint8Array;

beforeEach(async () => {
  clock = new ManualClock();
  device = new FakeDisk({ sizeBytes: SIZE });
  tracer = new FakeTracer([device]);
  freezer = new FakeFreezer(clock);
  freezer.onFrozen = () => {
    atFreeze = device.bytes.slice();
  };
  disk = new CapturedDisk({ index: 0, device, identity: await device.identity() });
  tracking = new Tracking({ tracer, clock, disks: [disk] });
  sink = new CopySink();
  hookCalls = [];
  hookFailures = [];
  frozenBytesMax = undefined;
  running = true;
  void (async () => {
    while (running) await clock.advance(10);
  })();
});

afterEach(() => {
  running = false;
});

let frozenBytesMax: number | undefined;

function barrier(
  request: Partial<BarrierRequest> = {},
  uploaded: () => Promise<void> = async () => undefined,
) {
  return runBarrier(
    { consistency: 'Crash', final: false, ...request },
    {
      tracking,
      sink,
      clock,
      freezer,
      hooks: {
        run: async ({ phase }) => {
          hookCalls.push(phase);
          return { failures: phase === 'pre' ? hookFailures : [] };
        },
      },
      readRate: new ReadRate(clock),
      limits: {
        deadlineMs: 2_000,
        finalDeadlineMs: 20_000,
        ...(frozenBytesMax === undefined ? {} : { frozenBytesMax }),
      },
      log: silentLogger,
      ready: async () => undefined,
      deliver: async () => sink.nextLsn++,
      uploaded,
      frozen: () => undefined,
    },
  );
}

function expectCopyToBe(bytes: Uint8Array): void {
  expect(Buffer.compare(sink.copy, bytes)).toBe(0);
  for (const [leaf, hash] of sink.hashes)
    expect(
      Buffer.compare(hash, leafHash(sink.copy.subarray(leaf * LEAF_SIZE, (leaf + 1) * LEAF_SIZE))),
    ).toBe(0);
}

describe('a barrier', () => {
  test('holds the disk as it was while frozen, with the hash of every leaf it touched', async () => {
    device.write(4096, 8192, 7);
    device.write(10 * LEAF_SIZE, LEAF_SIZE, 9);
    expect(await barrier()).toMatchObject({ freezeMs: 7 });
    expectCopyToBe(atFreeze);
    expect(freezer.frozen).toBe(false);
    expect(tracking.dirtyBytes).toBe(0);
  });

  test('does not carry what is written after the thaw, which stays dirty', async () => {
    device.write(0, 4096, 1);
    await barrier();
    device.write(0, 4096, 2);
    await tracking.absorb();
    expect(sink.copy[0]).toBe(1);
    expect(tracking.dirtyBytes).toBe(4096);
  });

  test('keeps what is written to a former swap area while the barrier is prepared', async () => {
    freezer.swap = [
      {
        devicePath: device.path,
        offset: 8 * LEAF_SIZE,
        length: 4 * LEAF_SIZE,
        kind: 'partition',
        header: true,
      },
    ];
    await barrier();
    device.write(0, 8192, 1);
    const sync = freezer.sync.bind(freezer);
    let syncs = 0;
    freezer.sync = async () => {
      await sync();
      if (++syncs < 2) return;
      // Swapped off, and a filesystem made there.
      freezer.swap = [];
      device.write(9 * LEAF_SIZE, LEAF_SIZE, 7);
    };
    await barrier();
    expectCopyToBe(atFreeze);
  });

  test('reads again what is discarded while it is frozen', async () => {
    device.write(0, 2 * LEAF_SIZE, 5);
    let reads = 0;
    freezer.onFrozen = () => {
      device.beforeRead = () => {
        reads += 1;
        if (reads === 1) device.write(LEAF_SIZE, LEAF_SIZE, 0, 'discard');
      };
    };
    // Little is dirty, so all of it is read while frozen.
    await barrier();
    expectCopyToBe(device.bytes);
  });

  test('reads a RAID’s own record again, which the kernel writes once nobody else does', async () => {
    freezer.raidRecords = [{ devicePath: '/dev/fake', offset: 0, length: LEAF_SIZE }];
    device.write(5 * LEAF_SIZE, 4096, 5);
    let reads = 0;
    freezer.onFrozen = () => {
      device.beforeRead = () => {
        reads += 1;
        if (reads === 1) device.write(4096, 512, 8);
      };
    };
    await barrier();
    expect(device.bytes[4096]).toBe(8);
    expectCopyToBe(device.bytes);
  });

  test('is void when a write while it is frozen reaches past a RAID’s own record, and names it', async () => {
    freezer.raidRecords = [{ devicePath: '/dev/fake', offset: 0, length: 8192 }];
    device.write(5 * LEAF_SIZE, 4096, 5);
    freezer.onFrozen = () => {
      let once = true;
      device.beforeRead = () => {
        if (once) device.write(4096, 8192, 8);
        once = false;
      };
    };
    await expect(barrier()).rejects.toMatchObject({
      code: 'WrittenWhileFrozen',
      message: expect.stringContaining('8192 bytes at 4096 of /dev/fake'),
    });
  });

  test('is void when anything else is written while it is frozen, and keeps what it took dirty', async () => {
    device.write(0, 4096, 5);
    freezer.onFrozen = () => {
      let once = true;
      device.beforeRead = () => {
        if (once) device.write(8192, 4096, 6);
        once = false;
      };
    };
    await expect(barrier()).rejects.toMatchObject({
      code: 'WrittenWhileFrozen',
      message: expect.stringContaining('4096 bytes at 8192 of /dev/fake'),
    });
    expect(freezer.frozen).toBe(false);
    expect([...disk.dirt.dirty.leaves()]).toEqual([[0, 0b101]]);
    freezer.onFrozen = () => undefined;
    device.beforeRead = () => undefined;
    await barrier();
    expectCopyToBe(device.bytes);
  });

  test('is void when somebody else absorbed the write that was seen while frozen', async () => {
    device.write(0, 4096, 5);
    freezer.onFrozen = () => {
      let once = true;
      device.beforeRead = () => {
        if (once) {
          device.write(8192, 4096, 6);
          void tracking.absorb();
        }
        once = false;
      };
    };
    await expect(barrier()).rejects.toMatchObject({ code: 'WrittenWhileFrozen' });
  });

  test('is void when more was written than can be kept in memory: thaws, loses nothing, and the next one is right', async () => {
    frozenBytesMax = 4 * LEAF_SIZE;
    for (const leaf of [0, 1, 2, 20, 40]) device.write(leaf * LEAF_SIZE, LEAF_SIZE, leaf + 1);
    await expect(barrier()).rejects.toMatchObject({ code: 'BehindTheLink' });
    expect(freezer.calls.slice(-2)).toEqual(['freeze', 'thaw']);
    expect(freezer.frozen).toBe(false);
    expect(sink.nextLsn).toBe(1n);
    expect(tracking.dirtyBytes).toBe(5 * LEAF_SIZE);
    frozenBytesMax = 5 * LEAF_SIZE;
    await barrier();
    expectCopyToBe(device.bytes);
    expect(tracking.dirtyBytes).toBe(0);
  });

  test('keeps no memory for what reads as zero', async () => {
    frozenBytesMax = LEAF_SIZE;
    device.write(0, LEAF_SIZE, 9);
    device.write(LEAF_SIZE, 30 * LEAF_SIZE, 0, 'discard');
    await barrier();
    expectCopyToBe(device.bytes);
  });

  test('is void when a filesystem can not be frozen', async () => {
    freezer.failFreeze = true;
    await expect(barrier()).rejects.toMatchObject({ code: 'FreezeFailed' });
  });

  test('is void when somebody else thawed', async () => {
    device.write(0, 4096, 5);
    freezer.thawedByOthers = ['/data'];
    await expect(barrier()).rejects.toMatchObject({ code: 'ThawedEarly' });
    expect(tracking.dirtyBytes).toBe(4096);
  });

  test('blames the early thaw, not those who then wrote', async () => {
    freezer.thawedByOthers = ['/data'];
    freezer.onFrozen = () => {
      const original = device.writtenSectors.bind(device);
      device.writtenSectors = async () => {
        device.write(0, 512, 1);
        return await original();
      };
    };
    await expect(barrier()).rejects.toMatchObject({ code: 'ThawedEarly' });
  });

  test('is not frozen for when the page cache takes long to write back', async () => {
    freezer.syncMs = 600;
    await expect(barrier()).rejects.toMatchObject({ code: 'TooMuchToSync' });
    expect(freezer.calls).not.toContain('freeze');
  });

  test('is void when a disk never comes to rest', async () => {
    freezer.onFrozen = () => {
      const original = device.writtenSectors.bind(device);
      device.writtenSectors = async () => {
        device.write(0, 512, 1);
        return await original();
      };
    };
    await expect(barrier()).rejects.toMatchObject({ code: 'NotQuiet' });
    expect(freezer.frozen).toBe(false);
  });

  test('thaws and tells when a disk can not be read while it is frozen', async () => {
    device.write(0, 4096, 5);
    freezer.onFrozen = () => {
      device.readError = new Error('EIO');
    };
    await expect(barrier()).rejects.toThrow('EIO');
    expect(freezer.frozen).toBe(false);
    expect(tracking.dirtyBytes).toBe(4096);
  });

  test('leaves dirty what could not be sent after the thaw', async () => {
    device.write(0, 4096, 5);
    sink.failAfter = 0;
    await expect(barrier()).rejects.toThrow('the session ended');
    expect(tracking.dirtyBytes).toBe(4096);
  });
});

describe('lost tracking ends a barrier', () => {
  test('when a write was not traced, at whatever moment before', async () => {
    await barrier();
    device.blind = true;
    device.write(0, 512, 5);
    device.blind = false;
    await expect(barrier()).rejects.toMatchObject({ code: 'TrackingLost' });
    expect(freezer.frozen).toBe(false);
  });

  test('when the kernel dropped events', async () => {
    tracer.lost = 1;
    await expect(barrier()).rejects.toMatchObject({ code: 'TrackingLost' });
  });

  test('when tracing was changed meanwhile', async () => {
    tracer.problem = 'tracing_on is "0"';
    await expect(barrier()).rejects.toMatchObject({ code: 'TrackingLost' });
    expect(freezer.frozen).toBe(false);
  });

  test('when the disk behind the name is another one', async () => {
    device.identityNow = { ...device.identityNow, diskSequence: 2n };
    await expect(barrier()).rejects.toMatchObject({ code: 'TrackingLost' });
  });
});

describe('hooks', () => {
  const hooks = { directory: '/etc/hooks', timeoutSeconds: 5 };

  test('run around the freeze of an application-consistent barrier alone', async () => {
    await barrier({ consistency: 'App', hooks });
    expect(hookCalls).toEqual(['pre', 'post']);
    await barrier({ consistency: 'Crash', hooks });
    expect(hookCalls).toEqual(['pre', 'post']);
  });

  test('that fail before make no point, and those after run all the same', async () => {
    hookFailures = [{ hook: '10-database', reason: 'it ended with 3' }];
    await expect(barrier({ consistency: 'App', hooks })).rejects.toMatchObject({
      code: 'HookFailed',
      message: expect.stringContaining('10-database failed: it ended with 3'),
    });
    expect(hookCalls).toEqual(['pre', 'post']);
    expect(freezer.calls).not.toContain('freeze');
  });
});

describe('the last barrier of a planned failover', () => {
  test('stays frozen until the vault has it, and is then held', async () => {
    device.write(0, 4096, 5);
    let frozenThen = false;
    await barrier({ final: true }, async () => {
      frozenThen = freezer.frozen;
    });
    expect(frozenThen).toBe(true);
    expect(freezer.calls.at(-1)).toBe('hold');
    expectCopyToBe(device.bytes);
  });

  test('thaws when the vault does not have it by the deadline', async () => {
    await expect(
      barrier({ final: true }, () => new Promise(() => undefined)),
    ).rejects.toMatchObject({ code: 'FinalTimedOut' });
    expect(freezer.frozen).toBe(false);
  });
});

describe('swap', () => {
  test('has its header copied and its body zero, and its writes are no dirt', async () => {
    freezer.swap = [
      {
        devicePath: '/dev/fake',
        offset: LEAF_SIZE,
        length: 4 * LEAF_SIZE,
        kind: 'partition',
        header: true,
      },
    ];
    device.write(LEAF_SIZE, 4 * LEAF_SIZE, 3);
    await barrier();
    const expected = device.bytes.slice().fill(0, LEAF_SIZE + 4096, 5 * LEAF_SIZE);
    expectCopyToBe(expected);
    device.write(2 * LEAF_SIZE, 4096, 4);
    await tracking.absorb();
    expect(tracking.dirtyBytes).toBe(0);
    freezer.swap = [];
    await barrier();
    expectCopyToBe(device.bytes);
  });
});

test('a pass sends a leaf again although its hash did not change: the hash may have covered blocks still to come', async () => {
  device.write(0, 4096, 1);
  await tracking.absorb();
  let once = true;
  device.beforeRead = () => {
    // Written after the events were taken in, before the leaf is read: the first hash covers it, the first record does not carry it.
    if (once) device.write(4096, 4096, 2);
    once = false;
  };
  await runPass([disk], { sink, clock });
  expect(sink.copy[4096]).toBe(0);
  await tracking.absorb();
  await runPass([disk], { sink, clock });
  expectCopyToBe(device.bytes);
});
