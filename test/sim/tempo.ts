/**
 * Constants of the product that are too large for machines of two megabytes and lives of two minutes, and what stands there instead: what
 * takes many groups, many passes or hours in a real life happens here too. Behaviour is the same. A fragment that is not in its file
 * exactly once is an error.
 */
import { readFileSync } from 'node:fs';
import { registerHooks } from 'node:module';
import path from 'node:path';

interface Change {
  file: string;
  find: string;
  replace: string;
}

const root = path.resolve(import.meta.dirname, '../..');

export const tempo: readonly Change[] = [
  {
    file: 'dataplane/applier/machineLoop.ts',
    find: 'const RETENTION_EVERY_MS = 60_000;',
    replace: 'const RETENTION_EVERY_MS = 7_000;',
  },
  {
    file: 'dataplane/applier/machineLoop.ts',
    find: 'const TRIM_EVERY_MS = 600_000;',
    replace: 'const TRIM_EVERY_MS = 11_000;',
  },
  // Passes between barriers, and within them.
  {
    file: 'dataplane/agent/passWork.ts',
    find: 'const PASS_MS = 15_000;',
    replace: 'const PASS_MS = 4_000;',
  },
  {
    file: 'dataplane/agent/passWork.ts',
    find: 'const PASS_BYTES = 16 << 20;',
    replace: 'const PASS_BYTES = 512 << 10;',
  },
  {
    file: 'dataplane/agent/passWork.ts',
    find: 'const SAMPLE_BYTES = 16 << 20;',
    replace: 'const SAMPLE_BYTES = 256 << 10;',
  },
  {
    file: 'dataplane/agent/passWork.ts',
    find: 'const TELLING_BLOCKS = (4 << 20) / BLOCK_SIZE;',
    replace: 'const TELLING_BLOCKS = 16;',
  },
  {
    file: 'dataplane/capture/shrinking.ts',
    find: 'const LITTLE_BYTES = 4 << 20;',
    replace: 'const LITTLE_BYTES = 192 << 10;',
  },
  {
    file: 'dataplane/capture/shrinking.ts',
    find: 'const FROZEN_BYTES_MIN = 64 << 20;',
    replace: 'const FROZEN_BYTES_MIN = 4 << 20;',
  },
  // Several groups to a resync.
  {
    file: 'dataplane/capture/resync.ts',
    find: 'const GROUP_LEAVES = 128;',
    replace: 'const GROUP_LEAVES = 4;',
  },
  {
    file: 'dataplane/capture/resync.ts',
    find: 'const ZERO_RUN_MAX = 16384;',
    replace: 'const ZERO_RUN_MAX = 10;',
  },
];

/** Before anything imports the product. */
export function quicken(): void {
  replaceAtImport(tempo);
}

/** Returns how many of the files were loaded so far. */
export function replaceAtImport(changes: readonly Change[]): { loaded: () => number } {
  const loaded = new Set<string>();
  registerHooks({
    load: (asked, context, next) => {
      const result = next(asked, context);
      const ours = changes.filter(({ file }) => asked === urlOf(file));
      if (ours.length === 0) return result;
      loaded.add(asked);
      // Others may have changed it already.
      const source = String(result.source ?? readFileSync(new URL(asked), 'utf8'));
      return { ...result, source: ours.reduce(changed, source) };
    },
  });
  return { loaded: () => loaded.size };
}

/** Throws when the fragment is not there exactly once. */
export function changed(source: string, change: Change): string {
  const parts = source.split(change.find);
  if (parts.length !== 2)
    throw new Error(
      `${JSON.stringify(change.find.slice(0, 80))} is in ${change.file} ${parts.length - 1} times, not once`,
    );
  return parts.join(change.replace);
}

function urlOf(file: string): string {
  return new URL(file, `file://${root}/`).href;
}
