import { beforeEach, describe, expect, test } from 'vitest';
import { BlockDeviceError } from '../../platform/deviceErrors.ts';
import { ScrubWorld } from '../../test/fakes/scrubWorld.ts';
import { SeededRandom } from '../../test/fakes/seededRandom.ts';
import { LEAF_SIZE } from '../journal/record.ts';
import { runPass } from './pass.ts';
import { RECHECK_MS } from './scrub.ts';
import type { RecordSink } from './sink.ts';

let world: ScrubWorld;

beforeEach(async () => {
  world = await ScrubWorld.create();
});

describe('the scrub', () => {
  test('compares every clean leaf of every disk, to the last byte, and then begins anew', async () => {
    const ended = await world.pass();
    expect(ended).toMatchObject({ leavesCompared: 56, leavesPassedOver: 0 });
    expect(
      world.questions.map(({ disk, firstLeaf, hashes }) => [disk, firstLeaf, hashes.length / 32]),
    ).toEqual([
      [0, 0, 16],
      [0, 16, 4],
      [1, 0, 16],
      [1, 16, 16],
      [1, 32, 4],
    ]);
    expect(world.scrub.progress).toMatchObject({ disk: 0, leaf: 0, leavesCompared: 0 });
  });

  test.each([
    [0, 0],
    [0, 19],
    [1, 1],
    [1, 35],
  ])(
    'finds a write that neither the trace nor the account shows, on disk %d in leaf %d, and names it',
    async (disk, leaf) => {
      world.devices[disk]?.writeUnseen(leaf * LEAF_SIZE, 4096, 99);
      await expect(world.pass()).rejects.toMatchObject({
        code: 'TrackingLost',
        message: expect.stringContaining(`leaf ${leaf} of /dev/fake${disk} (disk ${disk},`),
      });
      expect(world.tracking.lost).toBeUndefined();
    },
  );

  test('calls nothing lost before it was read and asked for twice', async () => {
    world.devices[0]?.writeUnseen(3 * LEAF_SIZE, 4096, 99);
    await world.step();
    expect(world.questions).toHaveLength(1);
    world.devices[0]?.writeUnseen(0, 4096, 99);
    await expect(world.step()).rejects.toMatchObject({
      code: 'TrackingLost',
      message: expect.stringContaining('leaf 3 of'),
    });
    expect(world.questions.map(({ firstLeaf }) => firstLeaf)).toEqual([0, 0]);
  });

  test('has swap bodies zero, as they were sent', async () => {
    const [disk] = world.disks;
    const swap = { offset: 4 * LEAF_SIZE + 4096, length: 6 * LEAF_SIZE };
    disk?.setZeroed([swap]);
    await world.replicate();
    world.devices[0]?.write(swap.offset, 3 * LEAF_SIZE, 55);
    expect(await world.pass()).toMatchObject({ leavesCompared: 56 });
  });

  test('passes over what is not clean, and does not even read where nothing is', async () => {
    const [device] = world.devices;
    device?.write(0, 16 * LEAF_SIZE, 7);
    await world.tracking.absorb();
    device?.write(17 * LEAF_SIZE, 4096, 7);
    let reads = 0;
    const read = device?.read.bind(device);
    if (device === undefined || read === undefined) throw new Error('no device');
    device.read = async (...args) => {
      reads += 1;
      return await read(...args);
    };
    expect(await world.pass()).toMatchObject({ leavesCompared: 39, leavesPassedOver: 17 });
    expect(reads).toBe(1);
  });

  test('passes over leaves that were sent and are not in the vault yet, whose hashes are not settled', async () => {
    world.devices[0]?.write(0, 4096, 7);
    await world.tracking.absorb();
    await world.running(runPass(world.disks, world));
    expect(await world.pass()).toMatchObject({ leavesCompared: 55, leavesPassedOver: 1 });
    world.barrier();
    expect(await world.pass()).toMatchObject({ leavesCompared: 55, leavesPassedOver: 1 });
    world.upload();
    expect(await world.pass()).toMatchObject({ leavesCompared: 56 });
  });

  test('waits for a write that its read saw long before the kernel was told that it is done', async () => {
    const complete = world.devices[0]?.beginWrite(3 * LEAF_SIZE, 4096, 9);
    for (let second = 0; second < 30; second += 1) {
      const stop = new AbortController();
      const step = world.step(stop.signal);
      await world.clock.advance(1_000);
      stop.abort(new Error('a barrier'));
      expect(await step).toBeUndefined();
    }
    expect(world.scrub.progress.leaf).toBe(0);
    complete?.();
    expect(await world.pass()).toMatchObject({ leavesPassedOver: 1 });
  });

  test('calls nothing lost on a disk that is never at rest, says once that it waits, and finds it when the disk rests', async () => {
    const [device] = world.devices;
    if (device === undefined) throw new Error('no device');
    const complete = device.beginWrite(19 * LEAF_SIZE, 4096, 9);
    device.writeUnseen(0, 4096, 99);
    for (let step = 0; step < 800; step += 1) {
      const stop = new AbortController();
      const stepping = world.scrub.step({ sink: world.sink, signal: stop.signal });
      await world.clock.advance(100);
      stop.abort(new Error('enough'));
      expect((await stepping).outcome).toBe('Again');
      await world.clock.advance(2_000);
    }
    expect(world.log.lines.filter(({ level }) => level === 'warn')).toMatchObject([
      { fields: { code: 'ScrubWaits', device: '/dev/fake0', leaf: 0 } },
    ]);
    complete();
    await expect(world.pass()).rejects.toMatchObject({
      code: 'TrackingLost',
      message: expect.stringContaining('leaf 0 of'),
    });
  });

  test('takes two writes to one leaf, seen by its reads long apart, for no lost one', async () => {
    const [device] = world.devices;
    if (device === undefined) throw new Error('no device');
    let complete = device.beginWrite(0, 4096, 9);
    const look = async () => {
      const stop = new AbortController();
      const stepping = world.scrub.step({ sink: world.sink, signal: stop.signal });
      await world.clock.advance(100);
      stop.abort(new Error('a barrier'));
      return (await stepping).outcome;
    };
    expect(await look()).toBe('Again');
    // Nobody to ask for hours, then.
    complete();
    await world.replicate();
    await world.replicate();
    await world.clock.advance(7_200_000);
    complete = device.beginWrite(0, 4096, 10);
    expect(await look()).toBe('Again');
    complete();
    expect(await world.pass()).toMatchObject({ leavesPassedOver: 1 });
  });

  test('passes over what can not be read: that is no reason to stop anything else', async () => {
    const [device] = world.devices;
    const read = device?.read.bind(device);
    if (device === undefined || read === undefined) throw new Error('no device');
    device.read = async (into, offset) => {
      if (offset === 0) throw new BlockDeviceError('DiskReadFailed', device.path, 'a bad sector');
      return await read(into, offset);
    };
    expect(await world.pass()).toMatchObject({ leavesCompared: 40, leavesPassedOver: 16 });
  });

  test('goes on where a former agent was, and begins anew over other disks', async () => {
    await world.step();
    await world.step();
    const progress = { ...world.scrub.progress };
    expect(progress).toMatchObject({ disk: 1, leaf: 0, leavesCompared: 20 });
    world.scrub = world.newScrub(progress);
    world.devices[0]?.writeUnseen(0, 4096, 99);
    expect(await world.pass()).toMatchObject({ leavesCompared: 56 });
    for (const gone of [
      { ...progress, disk: 7 },
      { ...progress, leaf: 36 },
    ]) {
      world.scrub = world.newScrub(gone);
      await world.step();
      expect(world.questions.at(-1)).toMatchObject({ disk: 0, firstLeaf: 0 });
    }
  });
});

test('a disk without a leaf keeps the scrub from no other, and from nothing when it is alone', async () => {
  world = await ScrubWorld.create([4, 0, 4]);
  expect(await world.pass()).toMatchObject({ leavesCompared: 8 });
  expect(await world.pass()).toMatchObject({ leavesCompared: 8 });
  world = await ScrubWorld.create([0]);
  const { signal } = new AbortController();
  expect(await world.scrub.step({ sink: world.sink, signal })).toEqual({
    outcome: 'Done',
    pauseMs: 0,
  });
});

describe('what is more urgent', () => {
  test('ends a step while the answer is outstanding, and no second question is asked before it came', async () => {
    const answers: (() => void)[] = [];
    const sink: RecordSink = {
      ...world.sink,
      ask: async (question) => {
        await new Promise<void>((resolve) => answers.push(resolve));
        return await world.sink.ask(question);
      },
    };
    const stop = new AbortController();
    const step = world.scrub.step({ sink, signal: stop.signal });
    while (answers.length === 0) await world.clock.advance(1);
    stop.abort(new Error('a barrier'));
    expect(await step).toMatchObject({ outcome: 'Interrupted' });
    const { signal } = new AbortController();
    expect(await world.scrub.step({ sink, signal })).toMatchObject({ outcome: 'Interrupted' });
    expect(answers).toHaveLength(1);
    answers[0]?.();
    await world.clock.advance(1);
    expect(world.scrub.progress.leaf).toBe(0);
    expect(await world.pass()).toMatchObject({ leavesCompared: 56 });
  });

  test('ends it without a question when it came during the read', async () => {
    const stop = new AbortController();
    const [device] = world.devices;
    if (device === undefined) throw new Error('no device');
    device.beforeRead = () => stop.abort(new Error('a barrier'));
    expect(await world.step(stop.signal)).toBeUndefined();
    expect(world.questions).toHaveLength(0);
    expect(world.scrub.progress.leaf).toBe(0);
  });

  test('the end of the session ends the step with its error', async () => {
    const sink: RecordSink = {
      ...world.sink,
      ask: async () => {
        throw new Error('the session ended');
      },
    };
    const { signal } = new AbortController();
    await expect(world.scrub.step({ sink, signal })).rejects.toThrow('the session ended');
    expect(await world.pass()).toMatchObject({ leavesCompared: 56 });
  });
});

describe('whatever happens between two calls', () => {
  test('a write that begins at any call and completes at any later one is no lost write', {
    timeout: 120_000,
  }, async () => {
    // What differs costs the most calls.
    const model = await ScrubWorld.create([4]);
    model.calls = 0;
    model.devices[0]?.writeUnseen(0, 4096, 99);
    await expect(model.pass()).rejects.toMatchObject({ code: 'TrackingLost' });
    const { calls } = model;
    expect(calls).toBeGreaterThan(15);
    for (let begin = 0; begin < calls; begin += 1)
      for (let end = begin; end <= calls + 4; end += 1) {
        const made = await ScrubWorld.create([4]);
        made.calls = 0;
        let complete: () => void = () => undefined;
        made.atCall = (call) => {
          if (call === begin)
            complete = made.devices[0]?.beginWrite(LEAF_SIZE, 8192, 77) ?? complete;
          if (call !== end) return;
          complete();
          complete = () => undefined;
        };
        for (let step = 0; step < 4; step += 1) {
          const stop = new AbortController();
          const stepping = made.scrub.step({ sink: made.sink, signal: stop.signal });
          // Long enough for what ends by itself; a write that never completes is waited for.
          for (let turn = 0; turn < 3; turn += 1) await made.clock.advance(25);
          stop.abort(new Error('a barrier'));
          await expect(stepping, `begun at ${begin}, completed at ${end}`).resolves.not.toThrow();
        }
      }
  });

  test('a lost write at any call is found by the pass that follows at the latest', async () => {
    const model = await ScrubWorld.create();
    model.calls = 0;
    await model.pass();
    expect(model.calls).toBeGreaterThan(15);
    for (let at = 0; at < model.calls; at += 1) {
      const made = await ScrubWorld.create();
      made.calls = 0;
      made.atCall = (call) => {
        if (call === at) made.devices[1]?.writeUnseen(20 * LEAF_SIZE, 512, 99);
        // What is seen elsewhere hides nothing.
        made.devices[1]?.write(21 * LEAF_SIZE, 4096, call % 250);
      };
      const twice = async () => {
        await made.pass();
        await made.replicate();
        await made.pass();
      };
      await expect(twice(), `lost at ${at}`).rejects.toMatchObject({ code: 'TrackingLost' });
    }
  });

  test.each(Array.from({ length: 20 }, (_, seed) => seed))(
    'a busy machine raises no false alarm, and a write lost there is found (seed %d)',
    async (seed) => {
      const random = new SeededRandom(seed);
      const open: (() => void)[] = [];
      const write = () => {
        const device = world.devices[random.below(2)];
        if (device === undefined) return;
        const offset = random.below(device.bytes.length / 4096 - 2) * 4096;
        if (random.chance(0.5)) device.write(offset, 8192, random.below(255));
        else if (open.length < 2) open.push(device.beginWrite(offset, 8192, random.below(255)));
        else open.shift()?.();
      };
      const turns = [
        () => world.running(runPass(world.disks, world)),
        () => world.replicate(),
        async () => world.upload(),
        async () => {
          for (const { dirt } of world.disks) dirt.sendAgain();
        },
      ];
      world.atCall = () => {
        if (random.chance(0.03)) write();
      };
      for (let turn = 0; turn < 100; turn += 1) {
        if (random.chance(0.2)) write();
        await turns[random.below(12)]?.();
        const stop = new AbortController();
        const step = world.step(stop.signal);
        await world.clock.advance(2 * RECHECK_MS);
        stop.abort(new Error('a barrier'));
        await step;
      }
      world.atCall = () => undefined;
      for (const complete of open) complete();
      await world.replicate();
      await world.replicate();
      world.scrub = world.newScrub();
      expect(await world.pass()).toMatchObject({ leavesCompared: 56 });
      const leaf = random.below(36);
      world.devices[1]?.writeUnseen(leaf * LEAF_SIZE, 512, 255);
      await expect(world.pass()).rejects.toMatchObject({
        message: expect.stringContaining(`leaf ${leaf} of /dev/fake1`),
      });
    },
  );
});
