/** Somebody else thaws: an administrator, or another program. */
import type { Chance } from './chance.ts';
import type { Machine } from './machine.ts';

const SLOW_WRITE_MS = 150;
const SLOW_READ_MS = 20;

export interface Later {
  chance: Chance;
  /** Unless no fault comes any more by then. */
  later: (ms: number, act: () => void) => void;
}

/** While the disks are read, frozen: writes that go on at once may be read before anybody is told of them. */
export function thawWhileRead(
  machine: Machine,
  at: 'atNextFreeze' | 'atFinalFreeze',
  { chance, later }: Later,
): void {
  slowWrites(machine, { chance, later });
  for (const disk of machine.disks) disk.readMs = SLOW_READ_MS;
  machine.kernel[at] = () =>
    later(chance.between(0, 12), () => {
      machine.kernel.thawByOther();
      machine.workload.burst(chance.whole(1, 6));
      for (const disk of machine.disks) disk.readMs = 2;
    });
}

/** What is written may be on its way for a while. */
export function slowWrites(machine: Machine, { chance, later }: Later): void {
  for (const disk of machine.disks) disk.writeMs = SLOW_WRITE_MS;
  later(chance.about(20_000), () => {
    for (const disk of machine.disks) disk.writeMs = 1.5;
  });
}
