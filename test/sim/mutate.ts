/** Plants a bug as modules are loaded: one exact fragment of one product file is replaced. */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import type { Mutant } from './mutant.ts';
import { changed, replaceAtImport } from './tempo.ts';

const root = path.resolve(import.meta.dirname, '../..');

/** The file with the bug in it. Throws when the fragment is not there exactly once: the list no longer fits the product. */
export function mutated(mutant: Mutant): string {
  return changed(readFileSync(path.join(root, mutant.file), 'utf8'), mutant);
}

/** Before anything imports the product. Returns whether the file was loaded, which a run that finds nothing must know. */
export function plant(mutant: Mutant): { loaded: () => boolean } {
  const { loaded } = replaceAtImport([mutant]);
  return { loaded: () => loaded() > 0 };
}
