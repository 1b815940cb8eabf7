import { expect, test } from 'vitest';
import { JournalWorld, machineId, until } from '../../test/fakes/journalWorld.ts';
import { MemoryDisk } from '../../test/fakes/memoryDisk.ts';
import { joined, resyncBegin, resyncEnd } from '../../test/fakes/records.ts';

const inside = (reason: string) => ({ required: true, reason, beginLsn: 3n });

test('which resync a journal is inside of is known after a restart and after the loss of the cache', async () => {
  const world = new JournalWorld();
  let cache = await world.open();
  let journal = await cache.openMachine(world.machine());
  const begun = [resyncBegin(), resyncEnd(), resyncBegin('Manual')];
  await journal.append({ firstLsn: 1n, count: 3, records: joined(...begun) });
  expect(journal.resync()).toEqual(inside('Manual'));
  await world.clock.advance(60_000);
  await until(() => journal.positions().uploadedLsn === 3n);
  await cache.close();
  cache = await world.open();
  journal = await cache.openMachine(world.machine());
  expect(journal.resync()).toEqual(inside('Manual'));
  await cache.close();
  cache = await world.open({ disk: new MemoryDisk() });
  journal = await cache.openMachine(world.machine());
  expect(journal.resync()).toEqual(inside('VaultGap'));
  // A demand says that what was sent since does not count.
  await journal.requireResync('SourceReverted');
  expect(journal.resync()).toEqual({ required: true, reason: 'SourceReverted' });
  expect(cache.machines()).toContain(machineId);
  await cache.close();
});
