/**
 * Plants a bug as modules are loaded: one exact fragment of one product file is replaced. Fails loudly when the fragment is not there
 * exactly once, for then the list of planted bugs no longer fits the product.
 */
import { readFileSync } from 'node:fs';
import { registerHooks } from 'node:module';
import path from 'node:path';
import type { Mutant } from './mutants.ts';

const root = path.resolve(import.meta.dirname, '../..');

/** The file with the bug in it. Throws when the fragment is not there exactly once. */
export function mutated(mutant: Mutant): string {
  const source = readFileSync(path.join(root, mutant.file), 'utf8');
  const parts = source.split(mutant.find);
  if (parts.length !== 2)
    throw new Error(
      `planted bug ${mutant.name}: its fragment is in ${mutant.file} ${parts.length - 1} times, not once`,
    );
  return parts.join(mutant.replace);
}

/** Before anything imports the product. Returns whether the file was loaded, which a run that finds nothing must know. */
export function plant(mutant: Mutant): { loaded: () => boolean } {
  const text = mutated(mutant);
  const url = new URL(mutant.file, `file://${root}/`).href;
  let loaded = false;
  registerHooks({
    load: (asked, context, next) => {
      const result = next(asked, context);
      if (asked !== url) return result;
      loaded = true;
      return { ...result, source: text };
    },
  });
  return { loaded: () => loaded };
}
