import { describe, expect, test } from 'vitest';
import type { FilesystemFreezer, FreezePlan } from '../../platform/ports.ts';
import { eventually, mustBeStaged, type Pass } from './drivenDisk.ts';

/** No test lasts so long. */
const FAR_MS = 120_000;
/** Long enough to be held before, on a busy machine. */
const SOON_MS = 1_000;
/** Then that deadline has passed. */
const PASSED_MS = 1_300;

/** A machine to run the suite on. Nothing is frozen. */
export interface FreezerSite {
  /** Each call is what another agent of the machine would have. */
  freezer(): FilesystemFreezer;
  /** Disks, and the mount points of what lies on them, each a filesystem that can be frozen. */
  disks: readonly string[];
  mountPoints: readonly string[];
  /** Mount points of which the first lies on top of the second. */
  stack?: readonly [upper: string, lower: string];
  /** A disk without filesystems. */
  bareDisk: string;
  pass: Pass;
  /** Monotonic. */
  now(): number;
  isFrozen(mountPoint: string): Promise<boolean>;
  /** Somebody else thaws it. */
  thawByOther(mountPoint: string): Promise<void>;
  /** From now on the filesystem can't be frozen, until the returned function is called. */
  refuse(mountPoint: string): Promise<() => Promise<void>>;
  /** A write that stays in the page cache; the function says whether the disk has it. */
  cache?(mountPoint: string): Promise<() => Promise<boolean>>;
  /** Another agent freezes all, which then is killed. */
  frozenAgent?(options: { deadlineMs: number }): Promise<{ kill(): void }>;
}

/** What every FilesystemFreezer must do. A fresh site for each test. `without`: what is not there to be staged. */
export function filesystemFreezerConformance(
  open: () => Promise<FreezerSite>,
  { without = [] }: { without?: readonly ('cache' | 'agent')[] } = {},
): void {
  const planned = async (): Promise<{
    site: FreezerSite;
    freezer: FilesystemFreezer;
    plan: FreezePlan;
  }> => {
    const site = await open();
    const freezer = site.freezer();
    return { site, freezer, plan: await freezer.plan(site.disks) };
  };
  const frozen = async (deadlineMs = FAR_MS) => {
    const world = await planned();
    await world.freezer.prepare(world.plan);
    await world.freezer.freeze(world.plan, { deadlineMs });
    return world;
  };
  const frozenOf = async (site: FreezerSite): Promise<string[]> => {
    const found: string[] = [];
    for (const mountPoint of site.mountPoints)
      if (await site.isFrozen(mountPoint)) found.push(mountPoint);
    return found;
  };
  const expectFrozen = async (site: FreezerSite) =>
    expect(await frozenOf(site)).toEqual(site.mountPoints);
  const expectThawed = async (site: FreezerSite) => expect(await frozenOf(site)).toEqual([]);
  const thawedInTheEnd = (site: FreezerSite) =>
    eventually(site.pass, async () => (await frozenOf(site)).length === 0, 'all is thawed');

  describe('a plan', () => {
    test('has the filesystems on the disks, the top of a stack first', async () => {
      const { site, plan } = await planned();
      const found = plan.mounts.map(({ mountPoint }) => mountPoint);
      expect([...found].sort()).toEqual([...site.mountPoints].sort());
      expect(plan.mounts.every(({ freezable }) => freezable)).toBe(true);
      const [upper = '', lower = ''] = site.stack ?? [];
      expect(found.indexOf(upper)).toBeLessThanOrEqual(found.indexOf(lower));
      await expectThawed(site);
    });

    test('has nothing that lies on other disks', async () => {
      const site = await open();
      const plan = await site.freezer().plan([site.bareDisk]);
      expect({ mounts: plan.mounts, swap: plan.swap }).toEqual({ mounts: [], swap: [] });
    });
  });

  if (!without.includes('cache'))
    describe('what the page cache holds', () => {
      test('is on the disks after a sync, which freezes nothing', async () => {
        const { site, freezer, plan } = await planned();
        const isThere: (() => Promise<boolean>)[] = [];
        for (const mountPoint of site.mountPoints)
          isThere.push(await (site.cache ?? mustBeStaged)(mountPoint));
        await freezer.sync(plan);
        for (const look of isThere) expect(await look()).toBe(true);
        await expectThawed(site);
      });

      test('is on the disks once they are frozen', async () => {
        const { site, freezer, plan } = await planned();
        const [mountPoint = ''] = site.mountPoints;
        const isThere = await (site.cache ?? mustBeStaged)(mountPoint);
        await freezer.freeze(plan, { deadlineMs: FAR_MS });
        expect(await isThere()).toBe(true);
        await freezer.thaw(plan);
      });
    });

  describe('a freeze', () => {
    test('holds all of them, and only once it is asked for; a thaw lets all go', async () => {
      const { site, freezer, plan } = await planned();
      await freezer.prepare(plan);
      await expectThawed(site);
      await freezer.freeze(plan, { deadlineMs: FAR_MS });
      await expectFrozen(site);
      expect(await freezer.check(plan)).toEqual({ void: [] });
      await expectFrozen(site);
      expect((await freezer.thaw(plan)).void).toEqual([]);
      await expectThawed(site);
    });

    test('needs no preparation', async () => {
      const { site, freezer, plan } = await planned();
      await freezer.freeze(plan, { deadlineMs: FAR_MS });
      await expectFrozen(site);
      await freezer.thaw(plan);
      await expectThawed(site);
    });

    test('can be made again and again', async () => {
      const { site, freezer, plan } = await frozen();
      expect((await freezer.thaw(plan)).void).toEqual([]);
      for (let round = 0; round < 2; round += 1) {
        await freezer.prepare(plan);
        await freezer.freeze(plan, { deadlineMs: FAR_MS });
        await expectFrozen(site);
        expect((await freezer.thaw(plan)).void).toEqual([]);
        await expectThawed(site);
      }
    });

    test('that fails for one of them leaves none frozen, and the next may succeed', async () => {
      const { site, freezer, plan } = await planned();
      const last = plan.mounts.at(-1)?.mountPoint ?? '';
      const allow = await site.refuse(last);
      await freezer.prepare(plan);
      await expect(freezer.freeze(plan, { deadlineMs: FAR_MS })).rejects.toMatchObject({
        code: 'FreezeFailed',
        message: expect.stringContaining(last),
      });
      await allow();
      await expectThawed(site);
      expect(await freezer.thaw(plan)).toEqual({ frozenForMs: 0, void: [] });
      await freezer.freeze(plan, { deadlineMs: FAR_MS });
      await expectFrozen(site);
      expect((await freezer.thaw(plan)).void).toEqual([]);
    });
  });

  describe('a thaw', () => {
    test('tells for how long all was frozen', async () => {
      const { site, freezer, plan } = await planned();
      await freezer.prepare(plan);
      const before = site.now();
      await freezer.freeze(plan, { deadlineMs: FAR_MS });
      const begun = site.now();
      await site.pass(40);
      const ended = site.now();
      const { frozenForMs } = await freezer.thaw(plan);
      expect(frozenForMs).toBeGreaterThanOrEqual(ended - begun);
      expect(frozenForMs).toBeLessThanOrEqual(site.now() - before);
    });

    test('of what is not frozen says nothing, prepared or not, and once more', async () => {
      const { freezer, plan } = await planned();
      const nothing = { frozenForMs: 0, void: [] };
      expect(await freezer.thaw(plan)).toEqual(nothing);
      await freezer.prepare(plan);
      expect(await freezer.thaw(plan)).toEqual(nothing);
      await freezer.freeze(plan, { deadlineMs: FAR_MS });
      await freezer.thaw(plan);
      expect(await freezer.thaw(plan)).toEqual(nothing);
    });
  });

  describe('what somebody else thawed', () => {
    test('is told by a check, which leaves the others frozen, and by the thaw', async () => {
      const { site, freezer, plan } = await frozen();
      const [first = '', ...others] = site.mountPoints;
      await site.thawByOther(first);
      expect(await freezer.check(plan)).toEqual({ void: [first] });
      expect(await frozenOf(site)).toEqual(others);
      expect((await freezer.thaw(plan)).void).toEqual([first]);
      await expectThawed(site);
    });

    test('is told by the thaw alone, once', async () => {
      const { site, freezer, plan } = await frozen();
      const [first = ''] = site.mountPoints;
      await site.thawByOther(first);
      expect((await freezer.thaw(plan)).void).toEqual([first]);
      expect((await freezer.thaw(plan)).void).toEqual([]);
      await freezer.freeze(plan, { deadlineMs: FAR_MS });
      expect((await freezer.thaw(plan)).void).toEqual([]);
    });

    test('is told when it shall be held, and not held', async () => {
      const { site, freezer, plan } = await frozen();
      const [first = '', ...others] = site.mountPoints;
      await site.thawByOther(first);
      expect(await freezer.hold(plan)).toEqual({ void: [first] });
      expect(await site.isFrozen(first)).toBe(false);
      expect([...freezer.held()].sort()).toEqual([...others].sort());
      await freezer.thaw(plan);
      await expectThawed(site);
    });
  });

  describe('the watchdog', () => {
    test('thaws all at the deadline, which the check and the thaw then tell', async () => {
      const { site, freezer, plan } = await frozen(SOON_MS);
      await thawedInTheEnd(site);
      const all = [...site.mountPoints].sort();
      expect((await freezer.check(plan)).void.toSorted()).toEqual(all);
      expect((await freezer.thaw(plan)).void.toSorted()).toEqual(all);
      await freezer.freeze(plan, { deadlineMs: FAR_MS });
      await expectFrozen(site);
      expect((await freezer.thaw(plan)).void).toEqual([]);
    });

    test('of one freeze does not thaw the next', async () => {
      const { site, freezer, plan } = await frozen(SOON_MS);
      await freezer.thaw(plan);
      await freezer.freeze(plan, { deadlineMs: FAR_MS });
      // The deadline of the first.
      await site.pass(PASSED_MS);
      await expectFrozen(site);
      expect((await freezer.thaw(plan)).void).toEqual([]);
    });

    test('that thawed at the deadline has nothing left to be held', async () => {
      const { site, freezer, plan } = await frozen(SOON_MS);
      await thawedInTheEnd(site);
      const all = [...site.mountPoints].sort();
      expect((await freezer.hold(plan)).void.toSorted()).toEqual(all);
      expect(freezer.held()).toEqual([]);
      await expectThawed(site);
    });

    if (without.includes('agent')) return;

    test('thaws all when its agent dies', async () => {
      const site = await open();
      const agent = await (site.frozenAgent ?? mustBeStaged)({ deadlineMs: FAR_MS });
      await expectFrozen(site);
      agent.kill();
      await thawedInTheEnd(site);
    });
  });

  describe('what is held', () => {
    test('stays frozen past its deadline, and is named, until it is thawed', async () => {
      const { site, freezer, plan } = await frozen(SOON_MS);
      expect(freezer.held()).toEqual([]);
      expect(await freezer.hold(plan)).toEqual({ void: [] });
      expect([...freezer.held()].sort()).toEqual([...site.mountPoints].sort());
      await site.pass(PASSED_MS);
      await expectFrozen(site);
      expect((await freezer.thaw(plan)).void).toEqual([]);
      await expectThawed(site);
      expect(freezer.held()).toEqual([]);
    });

    test('is thawed by the next agent, once that knows of it', async () => {
      const { site, freezer, plan } = await frozen();
      await freezer.hold(plan);
      const next = site.freezer();
      expect(next.held()).toEqual([]);
      await next.thaw({ mounts: [], swap: [] });
      await expectFrozen(site);
      next.adoptHeld(freezer.held());
      expect([...next.held()].sort()).toEqual([...site.mountPoints].sort());
      expect((await next.thaw({ mounts: [], swap: [] })).void).toEqual([]);
      await expectThawed(site);
      expect(next.held()).toEqual([]);
    });

    test('and was thawed by somebody else is told, once', async () => {
      const { site, freezer, plan } = await frozen();
      const [first = ''] = site.mountPoints;
      await freezer.hold(plan);
      await site.thawByOther(first);
      expect((await freezer.thaw(plan)).void).toEqual([first]);
      await expectThawed(site);
      expect(await freezer.thaw(plan)).toEqual({ frozenForMs: 0, void: [] });
    });
  });
}
