/**
 * Where software RAIDs keep their own records on their disks. A fifth of a second after the last write the kernel notes in the
 * superblock of each member that the array is clean, whether or not the filesystem on top is frozen by then.
 */
import type { FreezePlan } from '../ports.ts';
import { SECTOR_SIZE, type Sysfs } from './sysfs.ts';

/** All of a member but its share of the array's data, on the disks that `devicePathOf` knows (kernel name → protected path). */
export function raidRecordsOn(
  sysfs: Sysfs,
  devicePathOf: ReadonlyMap<string, string>,
): NonNullable<FreezePlan['raidRecords']> {
  return sysfs
    .wholeDisks()
    .filter((name) => sysfs.attribute(name, 'md/level') !== undefined)
    .flatMap((array) =>
      sysfs
        .entries(array, 'md')
        .filter((entry) => entry.startsWith('dev-'))
        .flatMap((entry) => {
          const member = entry.slice('dev-'.length);
          const partition = sysfs.partitionOf(member);
          const devicePath = devicePathOf.get(partition?.disk ?? member);
          if (devicePath === undefined) return [];
          const whole = Number(sysfs.attribute(member, 'size') ?? 0) * SECTOR_SIZE;
          const dataStart = Number(sysfs.attribute(array, `md/${entry}/offset`)) * SECTOR_SIZE;
          const dataEnd = dataStart + Number(sysfs.attribute(array, `md/${entry}/size`)) * 1024;
          // A spare, or an array that is just being changed, says nothing useful.
          if (!(dataStart >= 0 && dataEnd > dataStart && dataEnd <= whole)) return [];
          const base = partition?.offset ?? 0;
          return [
            { devicePath, offset: base, length: dataStart },
            { devicePath, offset: base + dataEnd, length: whole - dataEnd },
          ].filter(({ length }) => length > 0);
        }),
    );
}
