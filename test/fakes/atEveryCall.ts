import type { MemoryObjectStore } from './memoryObjectStore.ts';

/**
 * Runs `act` again and again, each time in a new world; in the nth run `meanwhile` happens before its nth call. `check` sees what came
 * of it. Ends once `act` makes no more calls; returns how many it makes.
 */
export async function atEveryCall<W extends { objects: MemoryObjectStore }, T>(options: {
  world: () => Promise<W>;
  meanwhile: (world: W) => Promise<void>;
  act: (world: W) => Promise<T>;
  check: (result: T, world: W) => Promise<void>;
}): Promise<number> {
  for (let at = 1; ; at += 1) {
    const world = await options.world();
    let calls = 0;
    world.objects.interleave = async () => {
      calls += 1;
      if (calls !== at) return;
      world.objects.interleave = undefined;
      await options.meanwhile(world);
    };
    const result = await options.act(world);
    if (calls < at) return calls;
    await options.check(result, world);
  }
}
