/** Appliers that are killed, get no answer, or lose the replica to another one. */
import { expect, test } from 'vitest';
import { errorCode } from '../../platform/errors.ts';
import { StoreError } from '../../platform/storeErrors.ts';
import { type MemoryVault, memoryVault } from '../../test/fixtures/memoryVault.ts';
import { problemsOfPoints } from '../../test/replica/checkPoint.ts';
import { openReplica } from '../../test/replica/openReplica.ts';
import { SampleMachine } from '../../test/replica/sampleMachine.ts';

const MIB = 1 << 20;

test('a newer holder wins: the older one stops, and the points are right', async () => {
  const deps = memoryVault();
  const machine = new SampleMachine({ ...deps, seed: 11, sizes: [2 * MIB] });
  await machine.writeRounds(2);
  const older = await openReplica(deps, machine, { holder: 'applier:older' });
  await older.applyTo('end', { makePoints: true });
  const newer = await openReplica(deps, machine, { holder: 'applier:newer' });
  await machine.writeRounds(1);
  await expect(older.applyTo('end', { makePoints: true })).rejects.toMatchObject({
    code: 'ReplicaFenced',
    holder: 'applier:newer',
  });
  await older.close();
  await newer.applyTo('end', { makePoints: true });
  expect(await problemsOfPoints(deps, machine)).toEqual([]);
});

test('two holders that take turns at every call leave right points', async () => {
  const deps = memoryVault();
  const machine = new SampleMachine({ ...deps, seed: 12, sizes: [MIB, MIB] });
  await machine.writeRounds(4, { records: 6 });
  let left = 3;
  let others = 0;
  // At every 17th call somebody else opens the replica and works for a while.
  deps.objects.interleave = async () => {
    others += 1;
    if (others % 17 !== 0 || left === 0) return;
    left -= 1;
    const other = await openReplica(deps, machine, { holder: `applier:${left}` });
    await other.applyTo({ lsn: other.state.applied.lsn + 5n }, { makePoints: true });
  };
  for (let tries = 0; tries < 10; tries += 1) {
    const replica = await openReplica(deps, machine);
    try {
      await replica.applyTo('end', { makePoints: true });
      break;
    } catch (error) {
      expect(errorCode(error)).toBe('ReplicaFenced');
    }
  }
  expect(left).toBe(0);
  expect(await problemsOfPoints(deps, machine)).toEqual([]);
});

/** Fails call `at` of both stores together, once. */
function failAt(deps: MemoryVault, at: number, when: 'before' | 'after', code: Error) {
  let calls = 0;
  const fault = () => {
    calls += 1;
    return calls === at ? { when, error: code } : undefined;
  };
  deps.objects.fault = fault;
  deps.pages.fault = fault;
  return () => calls;
}

/** Runs until no call is left to fail, each time on a fresh copy of the same journal. */
async function runWithFaults(when: 'before' | 'after', error: () => Error) {
  const source = memoryVault();
  const machine = new SampleMachine({ ...source, seed: 13, sizes: [MIB, MIB + 512] });
  await machine.writeRounds(2, { records: 5 });
  for (let at = 1, reached = true; reached; at += 1) {
    const deps = memoryVault();
    for (const key of source.objects.keys())
      await deps.objects.put(key, (await source.objects.get(key))?.body ?? new Uint8Array());
    const calls = failAt(deps, at, when, error());
    for (let tries = 0; tries < 3; tries += 1) {
      try {
        const replica = await openReplica(deps, machine, { limits: { concurrency: 2 } });
        await replica.applyTo('end', { makePoints: true });
        break;
      } catch (thrown) {
        if (!['Killed', 'VaultUnreachable', 'ReplicaFenced'].includes(errorCode(thrown)))
          throw thrown;
      }
    }
    reached = calls() >= at;
    deps.objects.fault = undefined;
    deps.pages.fault = undefined;
    const problems = await problemsOfPoints(deps, machine);
    const snapshots = await snapshotCount(deps);
    // Two disks, two blobs each, two points: nothing missing, nothing left over.
    expect({ at, problems, snapshots }).toEqual({ at, problems: [], snapshots: 8 });
  }
}

async function snapshotCount(deps: MemoryVault): Promise<number> {
  let count = 0;
  for (const key of deps.pages.keys()) for await (const _ of deps.pages.snapshots(key)) count += 1;
  return count;
}

const killed = () => Object.assign(new Error('killed'), { code: 'Killed' });
const unreachable = () => new StoreError('VaultUnreachable', 'no answer');

test('killed before or after any call, the next one ends at the same points', async () => {
  await runWithFaults('before', killed);
  await runWithFaults('after', killed);
});

test('an answer that is lost at any call changes nothing', async () => {
  await runWithFaults('after', unreachable);
  await runWithFaults('before', unreachable);
});

test('a write that lands after its answer was given up cannot overwrite what came later', async () => {
  const deps = memoryVault();
  const machine = new SampleMachine({ ...deps, seed: 14, sizes: [MIB] });
  await machine.writeRounds(2);
  const write = deps.pages.write.bind(deps.pages);
  const late: (() => Promise<void>)[] = [];
  deps.pages.write = async (...args) => {
    if (late.length > 0 || args[0].endsWith('.leaves')) return await write(...args);
    late.push(() => write(...args));
    throw new StoreError('VaultUnreachable', 'no answer');
  };
  const replica = await openReplica(deps, machine);
  await replica.applyTo('end', { makePoints: true });
  await expect(late[0]?.()).rejects.toMatchObject({ code: 'FenceLost' });
  expect(await problemsOfPoints(deps, machine)).toEqual([]);
});
