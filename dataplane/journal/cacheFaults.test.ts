import { describe, expect, test } from 'vitest';
import { FarshoreError } from '../../platform/errors.ts';
import type { Disk } from '../../platform/ports.ts';
import { JournalWorld, machineId, sda, until } from '../../test/fakes/journalWorld.ts';
import { joined, resyncBegin, resyncEnd, SourceDisk } from '../../test/fakes/records.ts';
import type { MachineJournal } from './machineJournal.ts';

const other = 'fedcba9876543210fedcba9876543210';

/** The same disk, with one thing of it replaced. */
function patched(disk: Disk, changes: Partial<Disk>): Disk {
  return new Proxy(disk, {
    get: (target, name) => {
      const value = Reflect.get(changes, name) ?? Reflect.get(target, name);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}

function append(journal: MachineJournal, firstLsn: bigint, records: Uint8Array[]) {
  return journal.append({ firstLsn, count: records.length, records: joined(...records) });
}

/** Time passes until everything up to an LSN is in the vault. */
async function uploaded(world: JournalWorld, journal: MachineJournal, lsn: bigint): Promise<void> {
  for (let round = 0; journal.positions().uploadedLsn < lsn; round += 1) {
    if (round > 200) throw new Error(`LSN ${lsn} does not get uploaded`);
    await world.clock.advance(1_000);
    for (let turn = 0; turn < 20; turn += 1) await new Promise((resolve) => setImmediate(resolve));
  }
}

describe('a cache', () => {
  test('accepts nothing behind a batch that it could not take: no record is ever missing between others', async () => {
    const world = new JournalWorld({ limits: { minFreeBytes: 1 << 20 } });
    let failures = 0;
    const disk = patched(world.disk, {
      freeBytes: async () => {
        if (failures-- > 0) throw new FarshoreError('EIO', 'the volume does not answer');
        // Room for one more entry, after which it is asked again.
        return (1 << 20) + 1;
      },
    });
    const cache = await world.open({ disk });
    const failed: Error[] = [];
    cache.onFailed((error) => failed.push(error));
    const journal = await cache.openMachine(world.machine());
    const source = new SourceDisk({ index: 0, sizeBytes: sda.sizeBytes });
    await append(journal, 1n, [resyncBegin()]);
    // The next look at the volume fails, the one after succeeds.
    failures = 1;
    const first = append(
      journal,
      2n,
      Array.from({ length: 40 }, (_, leaf) => source.record(leaf)),
    );
    const second = append(journal, 42n, [source.record(41), resyncEnd()]);
    await Promise.allSettled([first, second]);
    expect(journal.positions().journaledLsn).toBe(1n);
    await expect(second).rejects.toMatchObject({ code: 'CacheFailed' });
    expect(failed).toHaveLength(1);
    await cache.close();
  });

  test('keeps a log file with durable records that have not taken effect yet, whatever others have uploaded', async () => {
    const world = new JournalWorld({ limits: { logFileBytes: 128 << 10 } });
    const slow = Promise.withResolvers<void>();
    let stalled = false;
    const disk = patched(world.disk, {
      open: async (path, mode) => {
        const file = await world.disk.open(path, mode);
        if (!path.includes(`${machineId}/disk-0.leaves`)) return file;
        return {
          ...file,
          read: async (into, offset) => {
            if (stalled) await slow.promise;
            return await file.read(into, offset);
          },
        };
      },
    });
    const cache = await world.open({ disk });
    const a = await cache.openMachine(world.machine());
    const b = await cache.openMachine({ ...world.machine(), machineId: other });
    const source = new SourceDisk({ index: 0, sizeBytes: sda.sizeBytes });
    source.bytes.fill(3);
    await append(a, 1n, [resyncBegin()]);
    await append(b, 1n, [resyncBegin()]);
    // A question to the table holds up everything of machine A that is durable already.
    stalled = true;
    const asked = a.ask({ disk: 0, firstLeaf: 0, hashes: new Uint8Array(32) });
    const held = append(a, 2n, [source.record(0)]);
    let lsn = 2n;
    for (let round = 0; round < 12; round += 1) {
      await append(b, lsn, [source.record(round % 8), source.record((round + 1) % 8)]);
      lsn += 2n;
    }
    await uploaded(world, b, lsn - 1n);
    // One more file, so that the first is not the newest.
    await append(b, lsn, [source.record(0)]);
    await uploaded(world, b, lsn);
    slow.resolve();
    await Promise.all([asked, held]);
    expect(a.positions().journaledLsn).toBe(2n);
    await uploaded(world, a, 2n);
    await cache.close();
  });

  test('loses nothing when power fails after its predecessor was killed inside a sync', async () => {
    const world = new JournalWorld();
    let killed = false;
    const disk = patched(world.disk, {
      open: async (path, mode) => {
        const file = await world.disk.open(path, mode);
        const sync = () => (killed ? new Promise<void>(() => {}) : file.sync());
        return path.startsWith('log/') ? { ...file, sync } : file;
      },
    });
    const first = await (await world.open({ disk })).openMachine(world.machine());
    await append(first, 1n, [resyncBegin()]);
    killed = true;
    const { write } = world.disk.counts;
    void append(first, 2n, [resyncEnd()]);
    await until(() => world.disk.counts.write > write);
    // It finds the record, which is in the kernel's memory alone, and builds on it.
    const second = await (await world.open()).openMachine(world.machine());
    const { journaledLsn } = second.positions();
    expect(journaledLsn).toBe(2n);
    await append(second, 3n, [resyncBegin()]);
    world.disk.crash();
    const third = await (await world.open()).openMachine(world.machine());
    expect(third.positions().journaledLsn).toBe(3n);
  });

  test('has the state that it goes on from also when power fails right after, whose rename nobody had synced', async () => {
    const world = new JournalWorld();
    let killed = false;
    const disk = patched(world.disk, {
      syncDirectory: (path) =>
        killed && path.startsWith('machines/')
          ? new Promise<void>(() => {})
          : world.disk.syncDirectory(path),
    });
    const first = await (await world.open({ disk })).openMachine(world.machine());
    await append(first, 1n, [resyncBegin(), resyncEnd()]);
    killed = true;
    const { rename } = world.disk.counts;
    void first.requireResync('Manual');
    await until(() => world.disk.counts.rename > rename);
    const second = await (await world.open()).openMachine(world.machine());
    expect(second.resync()).toEqual({ required: true, reason: 'Manual' });
    world.disk.crash();
    const third = await (await world.open()).openMachine(world.machine());
    expect(third.resync()).toEqual({ required: true, reason: 'Manual' });
  });

  test('does not fail for all machines when a disk is taken off one while its barrier comes', async () => {
    const world = new JournalWorld();
    const cache = await world.open();
    const failed: Error[] = [];
    cache.onFailed((error) => failed.push(error));
    const sdb = { index: 1, name: 'sdb', sizeBytes: sda.sizeBytes };
    const journal = await cache.openMachine(world.machine({ disks: [sda, sdb] }));
    await append(journal, 1n, [resyncBegin(), resyncEnd()]);
    const changed = journal.setDisks([sda]);
    const barrier = journal.barrier({
      lsn: 3n,
      timeMs: 1,
      consistency: 'Crash',
      disks: [sda, sdb],
      freezeMs: 1,
    });
    await expect(barrier).rejects.toMatchObject({ code: 'DiskUnknown' });
    await changed;
    expect(failed).toEqual([]);
    await append(journal, 3n, [resyncBegin()]);
    await cache.close();
  });

  test('keeps what is journaled when its disk fails while uploading: that is no damage', async () => {
    const world = new JournalWorld();
    let failing = false;
    const disk = patched(world.disk, {
      rename: async (names) => {
        if (failing && names.to.endsWith('state.json')) throw new FarshoreError('ENOSPC', 'full');
        await world.disk.rename(names);
      },
    });
    let cache = await world.open({ disk });
    const failed = new Promise<Error>((resolve) => cache.onFailed(resolve));
    let journal = await cache.openMachine(world.machine());
    await append(journal, 1n, [resyncBegin(), resyncEnd()]);
    failing = true;
    let over = false;
    void failed.then(() => {
      over = true;
    });
    for (let round = 0; !over && round < 100; round += 1) {
      await world.clock.advance(1_000);
      for (let turn = 0; turn < 20; turn += 1)
        await new Promise((resolve) => setImmediate(resolve));
    }
    expect(await failed).toMatchObject({ code: 'CacheFailed' });
    failing = false;
    await cache.close();
    cache = await world.open();
    journal = await cache.openMachine(world.machine());
    expect(journal.resync()).toEqual({ required: false });
    expect(journal.positions().journaledLsn).toBe(2n);
    await uploaded(world, journal, 2n);
    await cache.close();
  });
});
