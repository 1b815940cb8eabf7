import { chmodSync, existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect, test } from 'vitest';
import { ManualClock } from '../../test/fakes/manualClock.ts';
import { LinuxFreezer } from './freezer.ts';

/** Freezes a file; fails while another file is there. */
const FSFREEZE = `#!/bin/sh
here=$(dirname "$0")
say() { echo "fsfreeze: $1" >&2; exit 1; }
[ "$1" = --version ] && exit
[ -f "$here/broken" ] && say "cannot open $2: Cannot allocate memory"
if [ "$1" = -u ]; then rm "$here/frozen" 2>/dev/null || say "$2: unfreeze failed: Invalid argument"; fi
if [ "$1" = -f ]; then [ ! -f "$here/frozen" ] || say "$2: freeze failed: Device or resource busy"; touch "$here/frozen"; fi
exit 0
`;

// The second has in its name what the kernel says of what is frozen.
test.for(['data', 'busybox'])(
  'what can not be told to be frozen when it is to be held is not called held, and thawed: %s',
  async (name) => {
    const directory = mkdtempSync(path.join(tmpdir(), 'farshore-freezer-'));
    const file = (of: string) => path.join(directory, of);
    writeFileSync(file('fsfreeze'), FSFREEZE);
    chmodSync(file('fsfreeze'), 0o755);
    const before = process.env.PATH;
    process.env.PATH = `${directory}:${before}`;
    try {
      const freezer = new LinuxFreezer({ clock: new ManualClock() });
      const mount = { mountPoint: file(name), filesystem: 'ext4', source: 'x', freezable: true };
      const plan = { mounts: [mount], swap: [] };
      await freezer.prepare(plan);
      await freezer.freeze(plan, { deadlineMs: 60_000 });
      writeFileSync(file('broken'), '');
      expect(await freezer.hold(plan)).toEqual({ void: [mount.mountPoint] });
      expect(freezer.held()).toEqual([]);
      expect(existsSync(file('frozen'))).toBe(true);
      rmSync(file('broken'));
      await freezer.thaw(plan);
      expect(existsSync(file('frozen'))).toBe(false);
    } finally {
      process.env.PATH = before;
      rmSync(directory, { recursive: true, force: true });
    }
  },
);
