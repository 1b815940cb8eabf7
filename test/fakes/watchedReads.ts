import type { FakeDisk } from './sourceMachine.ts';

/** What is read of a disk from now on; each read takes so many turns. */
export function watchReads(
  device: FakeDisk,
  turns = 1,
): { sizes: number[]; inFlight: number; atOnce: number } {
  const seen = { sizes: [] as number[], inFlight: 0, atOnce: 0 };
  const read = device.read.bind(device);
  device.read = async (into, offset) => {
    seen.sizes.push(into.length);
    seen.inFlight += 1;
    seen.atOnce = Math.max(seen.atOnce, seen.inFlight);
    for (let turn = 0; turn < turns; turn += 1) await Promise.resolve();
    seen.inFlight -= 1;
    return await read(into, offset);
  };
  return seen;
}
