/** Planted bugs of leaf hashes (../mutants.ts). */
import type { Mutant } from '../mutant.ts';

export const leafHashMutants: readonly Mutant[] = [
  {
    name: 'believe-a-hash-of-a-part-of-a-leaf',
    file: 'dataplane/journal/leafTable.ts',
    find: '    if (!same || this.#unsettled.has(leaf)) return LeafAnswer.Differs;',
    replace: '    if (!same) return LeafAnswer.Differs;',
    breaks: '4',
  },
  {
    name: 'answer-pending-as-uploaded',
    file: 'dataplane/journal/leafTable.ts',
    find: '    return pending ? LeafAnswer.SamePending : LeafAnswer.SameUploaded;',
    replace: '    return pending && leaf < 0 ? LeafAnswer.SamePending : LeafAnswer.SameUploaded;',
    breaks: '1',
  },
  {
    name: 'rebuild-leaf-hashes-without-the-journal',
    file: 'dataplane/journal/rebuild.ts',
    find: '        table?.set(record.leaf, record.leafHash, record.blockMask === WHOLE_LEAF);',
    replace: '        table?.setPending(record.leaf);',
    breaks: '5',
  },
  {
    name: 'no-resync-demanded-after-damage',
    file: 'dataplane/journal/openJournal.ts',
    find: "      resync: damaged ? { required: true, reason: 'VaultGap' } : rebuilt.resync,",
    replace: '      resync: rebuilt.resync,',
    breaks: '6',
  },
];
