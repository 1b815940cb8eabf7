import type { Mutant } from '../sim/mutant.ts';
import { mutants as ofTheDataPath } from '../sim/mutants.ts';

/** Planted bugs that only a power loss right after a kill shows: every crash is tried here, while the simulation would have to meet it. */
const ofCrashes: readonly Mutant[] = [
  {
    name: 'believe-a-log-that-is-not-synced',
    file: 'dataplane/journal/cacheRecovery.ts',
    find: '  await makeDurable(disk, recovered);\n',
    replace: '',
    breaks: '1',
  },
  {
    name: 'believe-names-that-are-not-synced',
    file: 'dataplane/journal/cachedJournal.ts',
    find: '  await deps.disk.syncDirectory(machineDirectory(machineId));\n',
    replace: '',
    breaks: '1',
  },
];

/** Those that make a cache lose, or not find again, what it acknowledged. */
export const cacheMutants: readonly Mutant[] = [
  ...ofTheDataPath.filter(({ name }) =>
    [
      'acknowledge-before-fsync',
      'acknowledge-barrier-before-it-is-durable',
      'no-directory-fsync-of-a-log-file',
      'state-file-not-synced',
      'trim-the-log-before-upload',
      'forget-the-sealed-segment-at-a-restart',
    ].includes(name),
  ),
  ...ofCrashes,
];

export function cacheMutantNamed(name: string): Mutant {
  const mutant = cacheMutants.find((one) => one.name === name);
  if (mutant === undefined) throw new Error(`there is no planted bug ${name} of the cache`);
  return mutant;
}
