import fc from 'fast-check';
import { expect, test } from 'vitest';
import { memoryVault } from '../../test/fixtures/memoryVault.ts';
import { problemsOfPoints } from '../../test/replica/checkPoint.ts';
import { openReplica } from '../../test/replica/openReplica.ts';
import { type SampleBarrier, SampleMachine } from '../../test/replica/sampleMachine.ts';
import { sequenceOfSegmentKey, vaultLayout } from '../../vault/layout.ts';
import { Replica } from './replica.ts';
import { readReplicaState } from './replicaFence.ts';

const MIB = 1 << 20;

test('every barrier becomes a point that holds the disks byte for byte', async () => {
  const deps = memoryVault();
  const machine = new SampleMachine({ ...deps, seed: 1, sizes: [3 * MIB, MIB + 512] });
  await machine.writeRounds(4);
  const replica = await openReplica(deps, machine);
  const result = await replica.applyTo('end', { makePoints: true });
  expect(result.appliedLsn).toBe(machine.lsn);
  expect(await problemsOfPoints(deps, machine)).toEqual([]);
  await replica.close();
  expect(await readReplicaState(deps.objects, machine.machineId)).toMatchObject({ holder: '' });
});

test('applies up to an LSN and makes its point, then goes on from inside the segment', async () => {
  const deps = memoryVault();
  const machine = new SampleMachine({ ...deps, seed: 2, sizes: [2 * MIB] });
  for (let round = 0; round < 3; round += 1) {
    for (let record = 0; record < 20; record += 1) machine.writeRandom();
    machine.barrier();
  }
  await machine.cut();
  const [, second] = machine.barriers as [SampleBarrier, SampleBarrier];
  const replica = await openReplica(deps, machine);
  const result = await replica.applyTo({ lsn: second.lsn }, { makePoints: true });
  expect(result).toMatchObject({ appliedLsn: second.lsn, point: { lsn: second.lsn } });
  await replica.close();

  const again = await openReplica(deps, machine);
  await again.applyTo('end', { makePoints: true });
  expect(await problemsOfPoints(deps, machine)).toEqual([]);
});

test('a target that was reached is answered from its point; one that was passed without a point is refused', async () => {
  const deps = memoryVault();
  const machine = new SampleMachine({ ...deps, seed: 3, sizes: [2 * MIB] });
  await machine.writeRounds(3);
  const [first, second] = machine.barriers as [SampleBarrier, SampleBarrier];
  const replica = await openReplica(deps, machine);
  await replica.applyTo({ lsn: first.lsn }, { makePoints: true });
  await replica.applyTo({ lsn: first.lsn }, { makePoints: true });
  await replica.applyTo('end', { makePoints: false });
  expect((await replica.applyTo({ lsn: first.lsn }, { makePoints: true })).appliedLsn).toBe(
    machine.lsn,
  );
  await expect(replica.applyTo({ lsn: second.lsn }, { makePoints: true })).rejects.toMatchObject({
    code: 'ReplicaPastTarget',
  });
});

test('far behind, only the newest barriers become points, and the target always', async () => {
  const deps = memoryVault();
  const machine = new SampleMachine({ ...deps, seed: 4, sizes: [2 * MIB] });
  await machine.writeRounds(12, { records: 5 });
  const replica = await openReplica(deps, machine, { limits: { backlogBarriers: 2 } });
  const early = machine.barriers[3] as SampleBarrier;
  await replica.applyTo({ lsn: early.lsn }, { makePoints: true });
  await replica.applyTo('end', { makePoints: true });
  const made = machine.barriers.filter((_, place) => [1, 2, 3, 9, 10, 11].includes(place));
  expect(await problemsOfPoints(deps, machine, made)).toEqual([]);
});

test('no barrier between the begin and the end of a resync becomes a point', async () => {
  const deps = memoryVault();
  const machine = new SampleMachine({ ...deps, seed: 5, sizes: [2 * MIB] });
  await machine.writeRounds(1);
  machine.resyncBegin('TrackingLost');
  await machine.writeRounds(1);
  const replica = await openReplica(deps, machine);
  await replica.applyTo('end', { makePoints: true });
  expect(replica.state.resyncing).toBe(true);
  machine.writeRandom();
  machine.resyncEnd();
  await machine.writeRounds(1);
  await replica.applyTo('end', { makePoints: true });
  const [before, , after] = machine.barriers as [SampleBarrier, SampleBarrier, SampleBarrier];
  expect(await problemsOfPoints(deps, machine, [before, after])).toEqual([]);
});

test('while a segment is written the next one is read, and none behind it', async () => {
  const deps = memoryVault();
  const machine = new SampleMachine({ ...deps, seed: 7, sizes: [2 * MIB] });
  await machine.writeRounds(4);
  const read = new Set<number>();
  const readWhileWriting: number[][] = [];
  const objects = noting(deps.objects, 'get', async (key) => {
    const seq = sequenceOfSegmentKey(key);
    if (seq !== undefined) read.add(seq);
  });
  const pages = noting(deps.pages, 'write', async (key) => {
    if (!key.endsWith('.vhd')) return;
    // Nothing here waits for time: what is to happen beside this write has happened after some turns.
    for (let turn = 0; turn < 200; turn += 1) await new Promise(setImmediate);
    readWhileWriting.push([...read]);
  });
  const replica = await openReplica({ ...deps, objects, pages }, machine, {
    limits: { pendingBytes: 1 },
  });
  await replica.applyTo('end', { makePoints: false });
  // Segment 0 is the claim.
  expect(readWhileWriting[0]).toEqual([0, 1, 2]);
  expect(readWhileWriting.at(-1)).toEqual([0, 1, 2, 3, 4]);
});

/** Calls `before` with the key that a call of this name is about, and waits for it. */
function noting<T extends object>(
  store: T,
  call: keyof T,
  before: (key: string) => Promise<void>,
): T {
  return new Proxy(store, {
    get: (target, name) => {
      const method = Reflect.get(target, name) as unknown;
      if (typeof method !== 'function') return method;
      if (name !== call) return method.bind(target);
      return async (...args: [string]) => {
        await before(args[0]);
        return await method.apply(target, args);
      };
    },
  });
}

test('a sealed journal says by whom, and goes on after a claim', async () => {
  const deps = memoryVault();
  const machine = new SampleMachine({ ...deps, seed: 6, sizes: [MIB] });
  await machine.writeRounds(1);
  await machine.seal('failover-1');
  const replica = await openReplica(deps, machine);
  expect(await replica.applyTo('end', { makePoints: true })).toMatchObject({
    sealedBy: 'failover-1',
  });
  await machine.claim();
  await machine.writeRounds(1);
  expect(await replica.applyTo('end', { makePoints: true })).toMatchObject({
    sealedBy: undefined,
    point: { segment: { writerEpoch: 2 } },
  });
  expect(await problemsOfPoints(deps, machine)).toEqual([]);
});

test('a disk of unknown size gets its size from the barrier', async () => {
  const deps = memoryVault();
  const machine = new SampleMachine({ ...deps, seed: 7, sizes: [3 * MIB + 4096, MIB] });
  await machine.writeRounds(2);
  const disks = machine.disks.map((disk) => ({ ...disk, sizeBytes: 0 }));
  const { machineId, dataKey } = machine;
  const options = { machineId, disks, dataKey, holder: 'applier:test' };
  const replica = await Replica.open(deps, { ...options, limits: { pendingBytes: 1 } });
  await replica.applyTo({ lsn: 10n }, { makePoints: true });
  expect(replica.state.disks[0]?.sizeBytes).toBe(0);
  await replica.close();
  const again = await Replica.open(deps, options);
  await again.applyTo('end', { makePoints: true });
  expect(await problemsOfPoints(deps, machine)).toEqual([]);
});

test('a disk that grew or shrank during a resync has the new size from the next barrier on', async () => {
  const deps = memoryVault();
  const machine = new SampleMachine({ ...deps, seed: 8, sizes: [2 * MIB] });
  const told = machine.disks.map((disk) => ({ ...disk }));
  await machine.writeRounds(2);
  for (const size of [5 * MIB + 512, MIB]) {
    machine.resyncBegin('DiskResized');
    machine.resizeDisk(0, size);
    for (let record = 0; record < 30; record += 1) machine.writeRandom();
    await machine.cut();
    machine.resyncEnd();
    await machine.writeRounds(1);
  }
  const { machineId, dataKey } = machine;
  for (let end = 20n; end <= machine.lsn + 20n; end += 20n) {
    const replica = await Replica.open(deps, {
      machineId,
      dataKey,
      disks: told,
      holder: 'applier:test',
    });
    const lsn = end > machine.lsn ? machine.lsn : end;
    await replica.applyTo({ lsn }, { makePoints: true });
    await replica.close();
  }
  expect(await problemsOfPoints(deps, machine)).toEqual([]);
});

test('a write past the end of a disk outside a resync is damage', async () => {
  const deps = memoryVault();
  const machine = new SampleMachine({ ...deps, seed: 9, sizes: [MIB] });
  await machine.writeRounds(1);
  const block = new Uint8Array(4096).fill(7);
  const leafHash = new Uint8Array(32);
  machine.data({ disk: 0, leaf: 16, blockMask: 1, zeroMask: 0, leafHash, blocks: [block] });
  await machine.cut();
  const replica = await openReplica(deps, machine);
  await expect(replica.applyTo('end', { makePoints: true })).rejects.toMatchObject({
    code: 'ReplicaDamaged',
  });
  expect(await problemsOfPoints(deps, machine)).toEqual([]);
});

test('a barrier whose root the leaf hashes do not give becomes no point, before and after a restart', async () => {
  const deps = memoryVault();
  const machine = new SampleMachine({ ...deps, seed: 15, sizes: [70 * MIB, MIB] });
  await machine.writeRounds(2);
  const block = machine.random.bytes(4096);
  const leafHash = machine.random.bytes(32);
  // The model does not follow: what an agent would have lost.
  machine.data({ disk: 0, leaf: 3, blockMask: 1, zeroMask: 0, leafHash, blocks: [block] });
  await machine.writeRounds(1, { records: 0 });
  const replica = await openReplica(deps, machine);
  const result = await replica.applyTo('end', { makePoints: true });
  expect(result.refused).toEqual({ lsn: machine.lsn, disks: ['disk-0'] });
  await replica.close();
  await machine.writeRounds(1, { records: 0 });
  const again = await openReplica(deps, machine);
  expect((await again.applyTo('end', { makePoints: true })).refused?.lsn).toBe(machine.lsn);
  // The leaf is sent again, as a resync would: the barrier after it can be proven.
  machine.write({ index: 0, leaf: 3, blockMask: 0xffff, zeroMask: 0 });
  await machine.writeRounds(1, { records: 0 });
  expect(await again.applyTo('end', { makePoints: true })).toMatchObject({ refused: undefined });
  const [first, second, , , last] = machine.barriers as SampleBarrier[];
  expect(await problemsOfPoints(deps, machine, [first, second, last] as SampleBarrier[])).toEqual(
    [],
  );
});

test('what lies before a damaged segment is applied, and its last barrier becomes a point', async () => {
  const deps = memoryVault();
  const machine = new SampleMachine({ ...deps, seed: 10, sizes: [MIB] });
  await machine.writeRounds(8, { records: 5 });
  const key = vaultLayout.segment(machine.machineId, 5);
  const stored = await deps.objects.get(key);
  const flipped = (stored?.body ?? new Uint8Array()).slice();
  flipped[flipped.length - 20] = (flipped[flipped.length - 20] ?? 0) ^ 1;
  await deps.objects.put(key, flipped);
  const replica = await openReplica(deps, machine, { limits: { backlogBarriers: 1 } });
  await expect(replica.applyTo('end', { makePoints: true })).rejects.toMatchObject({
    code: 'SegmentKeyRefused',
  });
  // Segment 0 is the claim, so segment 5 holds the fifth barrier.
  expect(replica.recoveryPointLsn).toBe(machine.barriers[3]?.lsn);
});

test('any journal gives points that equal the model, cut and resumed anywhere', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 2 ** 31 }),
      fc.array(fc.constantFrom('write', 'whole', 'barrier', 'cut', 'claim'), { maxLength: 60 }),
      fc.integer({ min: 1, max: 25 }),
      async (seed, steps, stride) => {
        const deps = memoryVault();
        const sizes = [MIB, 2 * MIB + 1024];
        const machine = new SampleMachine({ ...deps, seed, sizes });
        for (const step of steps) {
          if (step === 'barrier') machine.barrier();
          else if (step === 'cut') await machine.cut();
          else if (step === 'claim') await machine.claim();
          else machine.writeRandom({ whole: step === 'whole' });
        }
        await machine.cut();
        const limits = { backlogBarriers: 100, pendingBytes: 1 };
        for (let lsn = 0n; lsn < machine.lsn; ) {
          lsn += BigInt(stride);
          const replica = await openReplica(deps, machine, { limits });
          await replica.applyTo(
            { lsn: lsn < machine.lsn ? lsn : machine.lsn },
            { makePoints: true },
          );
        }
        expect(await problemsOfPoints(deps, machine)).toEqual([]);
      },
    ),
    { numRuns: 25 },
  );
});
