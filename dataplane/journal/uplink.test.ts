import { beforeEach, describe, expect, onTestFinished, test } from 'vitest';
import { ManualClock } from '../../test/fakes/manualClock.ts';
import { Uplink } from './uplink.ts';

const KIB = 1 << 10;
const MIB = 1 << 20;

let clock: ManualClock;
let uplink: Uplink;
let over: AbortController;
/** What was given to the link, by machine, in bytes. */
let sent: Map<string, number>;
/** Machines in the order in which their segments were begun. */
let order: string[];

beforeEach(() => {
  clock = new ManualClock();
  uplink = new Uplink({ clock });
  over = new AbortController();
  sent = new Map();
  order = [];
  onTestFinished(() => over.abort(new Error('the test is over')));
});

/** One segment of a machine over the link, in pieces of 1 MiB. */
async function put(
  machineId: string,
  bytes: number,
  barrierMs: number | undefined,
  followedBy?: { bytes: number; oldestBarrierMs: number | undefined },
): Promise<void> {
  const { signal } = over;
  const request = { machineId, bytes, oldestBarrierMs: () => barrierMs, signal };
  await uplink.put({ ...request, followedBy: () => followedBy }, async () => {
    order.push(machineId);
    for await (const piece of uplink.slowed(pieces(bytes)))
      sent.set(machineId, (sent.get(machineId) ?? 0) + piece.length);
  });
}

const megabyte = new Uint8Array(MIB);
async function* pieces(bytes: number): AsyncGenerator<Uint8Array> {
  for (let left = bytes; left > 0; left -= MIB) yield megabyte.subarray(0, Math.min(left, MIB));
}

/**
 * A machine whose segments never end; each holds a barrier of a minute after the one before, or none. Between two it notes something,
 * as the uploader does.
 */
async function flood(
  machineId: string,
  options: { bytes: number; barriersFromMs?: number },
): Promise<void> {
  const { bytes } = options;
  let barrierMs = options.barriersFromMs;
  while (!over.signal.aborted) {
    const oldestBarrierMs = barrierMs === undefined ? undefined : barrierMs + 60_000;
    await put(machineId, bytes, barrierMs, { bytes, oldestBarrierMs }).catch(() => undefined);
    barrierMs = oldestBarrierMs;
    await clock.sleep(5);
  }
}

function share(machineId: string): number {
  const all = [...sent.values()].reduce((sum, bytes) => sum + bytes, 0);
  return (sent.get(machineId) ?? 0) / all;
}

function total(): number {
  return [...sent.values()].reduce((sum, bytes) => sum + bytes, 0);
}

describe('a limit', () => {
  test('is kept to within its burst, over a minute and over each second', async () => {
    uplink.limitTo(() => MIB);
    void flood('a', { bytes: 8 * MIB });
    let before = 0;
    for (let second = 0; second < 60; second += 1) {
      await clock.advance(1000);
      expect(total() - before).toBeLessThanOrEqual(1.25 * MIB);
      before = total();
    }
    expect(before / (60 * MIB)).toBeGreaterThan(0.98);
    expect(before / (60 * MIB)).toBeLessThan(1.01);
  });

  test('that changes counts from then on, for what is under way too', async () => {
    let limit: number | undefined = 256 * KIB;
    uplink.limitTo(() => limit);
    void flood('a', { bytes: 64 * MIB });
    await clock.advance(20_000);
    expect(total() / (20 * 256 * KIB)).toBeCloseTo(1, 1);
    let before = total();
    limit = 4 * MIB;
    await clock.advance(10_000);
    expect((total() - before) / (40 * MIB)).toBeCloseTo(1, 1);
    before = total();
    limit = 128 * KIB;
    await clock.advance(40_000);
    expect((total() - before) / (40 * 128 * KIB)).toBeLessThan(1.05);
  });

  test('that ends lets what waits go on within a second', async () => {
    let limit: number | undefined = 128 * KIB;
    uplink.limitTo(() => limit);
    const done = put('a', 64 * MIB, undefined);
    await clock.advance(5_000);
    limit = undefined;
    await clock.advance(1_000);
    await done;
    expect(total()).toBe(64 * MIB);
  });

  test('holds for small segments, which go in one piece, too; closing does not wait for their turn', async () => {
    uplink.limitTo(() => 128 * KIB);
    let passed = 0;
    const { signal } = over;
    const going = (async () => {
      for (;;) {
        await uplink.passed(MIB, signal);
        passed += MIB;
      }
    })();
    await clock.advance(80_000);
    expect(passed).toBe(10 * MIB);
    over.abort(new Error('closed'));
    const closed = expect(going).rejects.toThrow('closed');
    await clock.advance(1_000);
    await closed;
  });
});

describe('over a throttled link, of three machines', () => {
  beforeEach(() => uplink.limitTo(() => 10 * MIB));

  test('the one that is furthest behind comes first, until the others are as far behind', async () => {
    const minute = (count: number) => count * 60_000;
    // Two segments of each, of barriers that are this old; given in the wrong order.
    const putting = [
      put('fresh', 8 * MIB, minute(30)),
      put('late', 8 * MIB, minute(20)),
      put('latest', 8 * MIB, minute(10)),
    ];
    await clock.advance(10_000);
    await Promise.all(putting);
    // The first came when nobody else waited.
    expect(order).toEqual(['fresh', 'latest', 'late']);
  });

  test('one that is always behind does not take the others along: three quarters are its own', async () => {
    void flood('churn', { bytes: 32 * MIB, barriersFromMs: 0 });
    void flood('b', { bytes: 32 * MIB, barriersFromMs: 1e9 });
    void flood('c', { bytes: 32 * MIB, barriersFromMs: 1e9 + 1 });
    await clock.advance(600_000);
    expect(share('churn')).toBeCloseTo(0.75, 1);
    expect(share('b')).toBeCloseTo(0.125, 1);
    expect(share('c')).toBeCloseTo(0.125, 1);
  });

  test('an initial replication starves nobody and is starved by nobody', async () => {
    void flood('initial', { bytes: 63 * MIB });
    void flood('behind', { bytes: 16 * MIB, barriersFromMs: 0 });
    // One segment of a quiet machine at a time, a minute apart.
    const waits: number[] = [];
    const quiet = (async () => {
      for (let count = 0; count < 10; count += 1) {
        const since = clock.monotonic();
        await put('quiet', 512 * KIB, clock.now());
        waits.push(clock.monotonic() - since);
        await clock.sleep(60_000);
      }
    })();
    await clock.advance(900_000);
    await quiet;
    // Beside the large ones, not behind 63 MiB.
    expect(Math.max(...waits)).toBeLessThan(1_000);
    expect(share('initial')).toBeCloseTo(0.25, 1);
    expect(share('behind')).toBeCloseTo(0.75, 1);
  });

  test('two initial replications and one that waits for nothing else share evenly', async () => {
    void flood('a', { bytes: 63 * MIB });
    void flood('b', { bytes: 16 * MIB });
    void flood('c', { bytes: 4 * MIB });
    await clock.advance(600_000);
    for (const machine of ['a', 'b', 'c']) expect(share(machine)).toBeCloseTo(1 / 3, 1);
  });

  test('one that gives up while it waits leaves its place to the next', async () => {
    const first = put('a', 20 * MIB, 1);
    const gone = new AbortController();
    const given = uplink.put(
      { machineId: 'b', bytes: 20 * MIB, oldestBarrierMs: () => 0, signal: gone.signal },
      async () => order.push('b'),
    );
    const last = put('c', 20 * MIB, 2);
    gone.abort(new Error('closed'));
    await expect(given).rejects.toThrow('closed');
    await clock.advance(10_000);
    await Promise.all([first, last]);
    expect(order).toEqual(['a', 'c']);
  });
});

test('a put that fails gives its turn back', async () => {
  const request = { machineId: 'a', bytes: 8 * MIB, oldestBarrierMs: () => 0 };
  const { signal } = over;
  for (let count = 0; count < 5; count += 1)
    await expect(
      uplink.put({ ...request, signal }, () => Promise.reject(new Error('refused'))),
    ).rejects.toThrow('refused');
  await put('b', MIB, 0);
  expect(order).toEqual(['b']);
});

test('however many machines wait, no more than a few segments are sealed and sent at once', async () => {
  let now = 0;
  let most = 0;
  const held = Promise.withResolvers<void>();
  const act = async () => {
    now += 1;
    most = Math.max(most, now);
    await held.promise;
    now -= 1;
  };
  const { signal } = over;
  const all = Array.from({ length: 200 }, (_, index) => ({
    machineId: `m${index}`,
    bytes: index % 2 === 0 ? 64 * MIB : 4 * KIB,
    oldestBarrierMs: () => index,
    signal,
  })).flatMap((request) => [uplink.seal(request, act), uplink.put(request, act)]);
  await clock.advance(1_000);
  expect(most).toBe(8);
  held.resolve();
  await Promise.all(all);
});
