/** Planted bugs of the cache and of uploads (../mutants.ts). */
import type { Mutant } from '../mutant.ts';

export const cacheMutants: readonly Mutant[] = [
  {
    name: 'acknowledge-before-fsync',
    file: 'dataplane/journal/cacheLog.ts',
    find: '    await file.sync();\n    this.#end = writer.end;',
    replace: '    this.#end = writer.end;',
    breaks: '1',
  },
  {
    name: 'acknowledge-barrier-before-it-is-durable',
    file: 'dataplane/journal/localJournal.ts',
    find: '    await done;\n    return barrier;',
    replace: '    done.catch(() => {});\n    return barrier;',
    breaks: '1',
  },
  {
    name: 'no-directory-fsync-of-a-log-file',
    file: 'dataplane/journal/cacheLog.ts',
    find: '    await file.sync();\n    await this.#disk.syncDirectory(LOG_DIRECTORY);\n    this.#file = file;',
    replace: '    await file.sync();\n    this.#file = file;',
    breaks: '1',
  },
  {
    name: 'state-file-not-synced',
    file: 'platform/durableFile.ts',
    find: '    await file.sync();\n',
    replace: '',
    breaks: '1',
  },
  {
    name: 'trim-the-log-before-upload',
    file: 'dataplane/journal/localJournal.ts',
    find: '    return minLsn(uploaded.lsn, table.lsn);',
    replace: '    return maxLsn(uploaded.lsn, table.lsn);',
    breaks: '1',
  },
  {
    name: 'tell-journaled-as-uploaded',
    file: 'dataplane/journal/localJournal.ts',
    find: '      uploadedLsn: uploaded.lsn,\n      lastBarrierLsn',
    replace: '      uploadedLsn: this.#applied.lsn,\n      lastBarrierLsn',
    breaks: '1',
  },
  {
    name: 'forget-the-sealed-segment-at-a-restart',
    file: 'dataplane/journal/cachedJournal.ts',
    find: '      if (fits) {\n        waiting = sealed;\n        continue;\n      }',
    replace: '',
    breaks: '2',
  },
  {
    name: 'reuse-a-salt',
    file: 'dataplane/journal/uploader.ts',
    find: '      salt: random.bytes(32),',
    replace: '      salt: new Uint8Array(32),',
    breaks: '2',
  },
  {
    name: 'no-checksum-of-a-sealed-file',
    file: 'dataplane/journal/sealedFile.ts',
    find: "  if (hash.digest('hex') !== options.digest) return undefined;",
    replace: '',
    breaks: '2',
  },
];
