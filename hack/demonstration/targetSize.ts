/** Which size of Azure machine takes so many disks, of those that the emulator offers. */
import { sizes } from '../../test/arm/catalogue.ts';

/** The wanted one when it takes them; else the smallest that does. `disks` counts the one that the machine boots from. */
export function sizeFor(disks: number, wanted: string): string {
  const fitting = sizes.filter((size) => size.dataDisks + 1 >= disks);
  const best =
    fitting.find((size) => size.name === wanted) ??
    fitting.toSorted((a, b) => a.dataDisks - b.dataDisks || a.cores - b.cores)[0];
  if (best === undefined) throw new Error(`no size of machine takes ${disks} disks`);
  return best.name;
}

export function mostDisks(): number {
  return Math.max(...sizes.map((size) => size.dataDisks)) + 1;
}
