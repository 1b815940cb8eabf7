import fc from 'fast-check';
import { beforeEach, describe, expect, test } from 'vitest';
import { errorCode } from '../../platform/errors.ts';
import { StoreError } from '../../platform/storeErrors.ts';
import { ManualClock } from '../../test/fakes/manualClock.ts';
import { MemoryObjectStore } from '../../test/fakes/memoryObjectStore.ts';
import { MemoryPageBlobStore } from '../../test/fakes/memoryPageBlobStore.ts';
import { AppliedMachine } from '../../test/replica/appliedMachine.ts';
import type { SampleBarrier } from '../../test/replica/sampleMachine.ts';
import { encodeDocument } from '../../vault/documents/codec.ts';
import { trimMarkSchema } from '../../vault/documents/trimMark.ts';
import { vaultLayout } from '../../vault/layout.ts';
import { trimJournal } from './journalRetention.ts';
import { readTrimMark } from './trimMark.ts';

const MINUTE = 60_000;
/** Everything is past the retention. */
const all = { retentionMs: 0, nowMs: 9e12 };

let clock: ManualClock;
let objects: MemoryObjectStore;
let pages: MemoryPageBlobStore;
let applied: AppliedMachine;
let machineId: string;

beforeEach(() => {
  makeVault();
});

function makeVault(): void {
  clock = new ManualClock();
  objects = new MemoryObjectStore({ clock });
  pages = new MemoryPageBlobStore({ clock });
  applied = new AppliedMachine({ objects, pages, clock }, { seed: 31 });
  machineId = applied.machine.machineId;
}

/** A round a minute: segment n holds barrier n, as old as the barrier; segment 0 is the claim. */
async function writeMinutes(minutes: number): Promise<void> {
  for (let minute = 0; minute < minutes; minute += 1) {
    await clock.advance(MINUTE);
    await applied.write(1);
  }
}

function mark(): Promise<number> {
  return readTrimMark(objects, machineId);
}

describe('trimming a journal', () => {
  test('segments past the retention go, oldest first, and the mark says where the journal begins', async () => {
    await writeMinutes(10);
    await applied.apply();
    const asked = objects.log.length;
    const trimmed = await applied.trim({ retentionMs: 3 * MINUTE, nowMs: clock.now() });
    expect(trimmed).toMatchObject({ segments: 7, more: false });
    expect(trimmed.bytes).toBeGreaterThan(0);
    expect(await applied.segments()).toEqual([7, 8, 9, 10]);
    expect(await mark()).toBe(7);
    const changes = objects.log
      .slice(asked)
      .filter(({ operation }) => operation === 'putIfAbsent' || operation === 'remove')
      .map(({ key }) => key);
    expect(changes).toEqual([
      vaultLayout.trimMark(machineId),
      ...[0, 1, 2, 3, 4, 5, 6].map((seq) => vaultLayout.segment(machineId, seq)),
    ]);
    expect(await applied.problems()).toEqual([]);
  });

  test('the segment of the newest point stays and all behind it, whatever the age', async () => {
    await writeMinutes(4);
    await applied.apply();
    await applied.write(2);
    await applied.trim(all);
    expect(await applied.segments()).toEqual([4, 5, 6]);
    expect(await applied.problems()).toEqual([]);
  });

  test('what the replica has not applied stays, and the segment in which it stands', async () => {
    await writeMinutes(4);
    await applied.apply();
    await trimJournal(applied.deps, { ...all, machineId, applied: { seq: 2 }, limit: 100 });
    expect(await applied.segments()).toEqual([2, 3, 4]);
  });

  test('without a point nothing goes: the journal is the only copy', async () => {
    for (let record = 0; record < 5; record += 1) {
      applied.machine.writeRandom();
      await applied.machine.cut();
    }
    await applied.apply();
    expect(await applied.trim(all)).toEqual({ segments: 0, bytes: 0, more: false });
    expect(await applied.segments()).toEqual([0, 1, 2, 3, 4, 5]);
    expect(await mark()).toBe(0);
  });

  test('while nothing arrives nothing goes, however late it is', async () => {
    await writeMinutes(4);
    await applied.apply();
    await applied.trim({ retentionMs: 10 * MINUTE, nowMs: clock.now() + 1e10 });
    expect(await applied.segments()).toEqual([0, 1, 2, 3, 4]);
  });

  test('the newest segment stays, even where a point tells of more than there is', async () => {
    await writeMinutes(8);
    await applied.apply();
    for (const seq of [5, 6, 7, 8]) await objects.remove(vaultLayout.segment(machineId, seq));
    await applied.trim(all);
    expect(await applied.segments()).toEqual([4]);
  });

  test('a point that can not be read counts for none', async () => {
    await writeMinutes(4);
    await applied.apply();
    const newest = applied.machine.barriers.at(-1) as SampleBarrier;
    await objects.put(vaultLayout.point(machineId, newest.lsn), new Uint8Array([1]));
    await applied.trim(all);
    expect(await applied.segments()).toEqual([3, 4]);
  });

  test('one call removes so many and no more, and says that there are others', async () => {
    await writeMinutes(6);
    await applied.apply();
    expect(await applied.trim({ ...all, limit: 4 })).toMatchObject({ segments: 4, more: true });
    expect(await applied.segments()).toEqual([4, 5, 6]);
    expect(await mark()).toBe(4);
    expect(await applied.trim({ ...all, limit: 2 })).toMatchObject({ segments: 2, more: false });
    expect(await applied.segments()).toEqual([6]);
  });

  test('a point whose journal was trimmed away stays whole', async () => {
    await writeMinutes(4);
    await applied.apply();
    const [first] = applied.machine.barriers as [SampleBarrier];
    await objects.put(vaultLayout.pointPin(machineId, first.lsn), new Uint8Array());
    await applied.retire(all);
    await applied.trim(all);
    expect(await applied.segments()).toEqual([4]);
    const kept = objects.keys().filter((key) => /points.*json$/.test(key));
    expect(kept).toContain(vaultLayout.point(machineId, first.lsn));
    expect(await applied.problems()).toEqual([]);
  });

  test('a mark that is higher than it can be removes nothing that is needed', async () => {
    await writeMinutes(4);
    await applied.apply();
    await applied.write(1);
    const firstSeq = 100;
    await objects.put(
      vaultLayout.trimMark(machineId),
      encodeDocument(trimMarkSchema, { machineId, firstSeq }),
    );
    await applied.trim(all);
    expect(await applied.segments()).toEqual([4, 5]);
  });

  test('what lies below the mark goes whatever its age: a dead trimmer left it, or a writer that slept', async () => {
    await writeMinutes(6);
    await applied.apply();
    const third = vaultLayout.segment(machineId, 3);
    const body = (await objects.get(third))?.body ?? new Uint8Array();
    await applied.trim({ retentionMs: MINUTE, nowMs: clock.now() });
    expect(await applied.segments()).toEqual([5, 6]);
    await objects.put(third, body);
    await applied.trim({ retentionMs: 5 * MINUTE, nowMs: clock.now() });
    expect(await applied.segments()).toEqual([5, 6]);
    expect(await mark()).toBe(5);
  });
});

/** At every moment: what is missing lies below the mark, and what is there is one run of numbers to the journal's end. */
async function problemsNow(end: number): Promise<string[]> {
  const { interleave, fault } = objects;
  objects.interleave = undefined;
  objects.fault = undefined;
  const there = await applied.segments();
  const firstSeq = await mark();
  const newest = (await applied.chain().newest())?.position.seq;
  objects.interleave = interleave;
  objects.fault = fault;
  const problems: string[] = [];
  const first = there[0] ?? end + 1;
  if (there.length !== end + 1 - first) problems.push(`a hole: ${there}`);
  if (first > firstSeq) problems.push(`${first} is the first, above the mark ${firstSeq}`);
  if (newest !== end) problems.push(`the newest is ${newest}`);
  return problems;
}

describe('a trimmer', () => {
  const killed = () => Object.assign(new Error('killed'), { code: 'Killed' });
  const lost = () => new StoreError('VaultUnreachable', 'no answer');

  /** Ends when no call is left to fail. */
  async function failAtEveryCall(options: {
    when: 'before' | 'after';
    error: () => Error;
    /** Whether there is a mark before. */
    marked: boolean;
  }): Promise<void> {
    const { when, error, marked } = options;
    for (let at = 1, reached = true; reached; at += 1) {
      makeVault();
      await writeMinutes(3);
      await applied.apply();
      if (marked) await applied.trim({ retentionMs: MINUTE, nowMs: clock.now() });
      await writeMinutes(1);
      await applied.apply();
      const problems: string[] = [];
      let calls = 0;
      objects.interleave = async () => {
        problems.push(...(await problemsNow(4)));
      };
      objects.fault = () => {
        calls += 1;
        return calls === at ? { when, error: error() } : undefined;
      };
      const first = await applied.trim(all).catch((thrown: unknown) => errorCode(thrown));
      reached = calls >= at;
      if (reached) expect(first).toMatch(/Killed|VaultUnreachable/);
      objects.fault = undefined;
      await applied.trim(all);
      objects.interleave = undefined;
      problems.push(...(await problemsNow(4)), ...(await applied.problems({ of: 'newest' })));
      expect({ at, problems }).toEqual({ at, problems: [] });
      expect(await applied.segments()).toEqual([4]);
      expect(await mark()).toBe(4);
    }
  }

  test('killed before or after any call leaves a journal that can be read, and the next one ends the work', async () => {
    await failAtEveryCall({ when: 'before', error: killed, marked: true });
    await failAtEveryCall({ when: 'after', error: killed, marked: true });
  });

  test('whose call is not answered leaves a journal that can be read, and the next one ends the work', async () => {
    await failAtEveryCall({ when: 'after', error: lost, marked: true });
    await failAtEveryCall({ when: 'after', error: lost, marked: false });
  });

  test('overtaken by another one at any call removes nothing that the other one keeps', async () => {
    for (let at = 1, reached = true; reached; at += 1) {
      makeVault();
      await writeMinutes(4);
      await applied.apply();
      const problems: string[] = [];
      let calls = 0;
      objects.interleave = async () => {
        calls += 1;
        if (calls !== at) return;
        objects.interleave = undefined;
        await writeMinutes(1);
        await applied.apply();
        await applied.trim({ retentionMs: MINUTE, nowMs: clock.now() });
        objects.interleave = async () => {
          problems.push(...(await problemsNow(5)));
        };
      };
      await applied.trim({ retentionMs: 2 * MINUTE, nowMs: clock.now() });
      reached = calls >= at;
      objects.interleave = undefined;
      if (!reached) break;
      expect({
        at,
        problems: [...problems, ...(await applied.problems({ of: 'newest' }))],
      }).toEqual({
        at,
        problems: [],
      });
      expect(await applied.segments()).toEqual([4, 5]);
      expect(await mark()).toBe(4);
    }
  });

  test('does not lower a mark that another one has raised', async () => {
    await writeMinutes(6);
    await applied.apply();
    await applied.trim({ retentionMs: MINUTE, nowMs: clock.now() });
    await applied.trim({ retentionMs: 4 * MINUTE, nowMs: clock.now() });
    expect(await mark()).toBe(5);
    expect(await applied.segments()).toEqual([5, 6]);
  });
});

test('any journal, trimmed and retired at any time, gives points and replays that equal the model', async () => {
  const step = fc.oneof(
    fc.constantFrom('write', 'write', 'barrier', 'barrier', 'cut', 'cut', 'claim', 'apply'),
    fc.record({
      trim: fc.integer({ min: 0, max: 6 }),
      limit: fc.integer({ min: 1, max: 4 }),
    }),
    fc.record({ retire: fc.integer({ min: 0, max: 6 }) }),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
      makeVault();
      const { machine } = applied;
      machine.writeRandom();
      machine.barrier();
      await machine.cut();
      await applied.apply();
      for (const next of steps) {
        if (next === 'write') machine.writeRandom();
        else if (next === 'barrier') {
          await clock.advance(MINUTE);
          machine.barrier();
          // As every writer does: a barrier is the last record of its segment.
          await machine.cut();
        } else if (next === 'cut') await machine.cut();
        else if (next === 'claim') await machine.claim();
        else if (next === 'apply') await applied.apply();
        else if ('trim' in next)
          await applied.trim({
            retentionMs: next.trim * MINUTE,
            nowMs: clock.now(),
            limit: next.limit,
          });
        else await applied.retire({ retentionMs: next.retire * MINUTE, nowMs: clock.now() });
      }
      await machine.cut();
      const there = await applied.segments();
      const first = there[0] ?? 0;
      expect(there).toEqual(there.map((_, place) => first + place));
      expect(first).toBeGreaterThanOrEqual(await mark());
      expect((await applied.chain().newest())?.position.seq).toBe(there.at(-1));
      expect(await applied.problems()).toEqual([]);
      await applied.apply();
      expect(await applied.problems()).toEqual([]);
    }),
    { numRuns: 30 },
  );
});
