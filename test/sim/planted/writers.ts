/** Planted bugs of who may write (../mutants.ts). */
import type { Mutant } from '../mutant.ts';

export const writerMutants: readonly Mutant[] = [
  {
    name: 'move-under-the-same-epoch',
    file: 'controllers/protectedvm/catalogEntry.ts',
    find: 'writerEpoch: moved ? writerEpoch + 1 : writerEpoch',
    replace: 'writerEpoch: moved ? writerEpoch : writerEpoch',
    breaks: '1',
  },
  {
    name: 'take-over-without-claiming',
    file: 'dataplane/journal/claim.ts',
    find: "    if (fenced !== undefined) return { outcome: 'fenced', fenced };\n    const committed = await append(deps, request, predecessor, {\n      kind: 'Claim',",
    replace:
      "    if (fenced !== undefined) return { outcome: 'fenced', fenced };\n    if (newest !== undefined)\n      return { outcome: 'claimed', position: newest.position, predecessor: newest.position };\n    const committed = await append(deps, request, predecessor, {\n      kind: 'Claim',",
    breaks: '3',
  },
  {
    name: 'claim-behind-a-higher-epoch',
    file: 'dataplane/journal/claim.ts',
    find: "  if (header.writerEpoch > writerEpoch) return { by: 'HigherEpoch' };\n",
    replace: '',
    breaks: '3',
  },
  {
    name: 'claim-behind-a-seal',
    file: 'dataplane/journal/claim.ts',
    find: "header.kind === 'Seal' && header.writerEpoch >= writerEpoch",
    replace: "header.kind === 'Seal' && header.writerEpoch > writerEpoch",
    breaks: '3',
  },
  {
    name: 'take-any-segment-for-our-own',
    file: 'dataplane/journal/segmentCommit.ts',
    find: '    if (present === undefined || present.position.digest === digest)\n',
    replace: '    if (present === undefined || present.position.seq >= 0)\n',
    breaks: '3',
  },
  {
    name: 'believe-the-cache-after-another-writer',
    file: 'dataplane/journal/openJournal.ts',
    find: "intact?.phase === 'Ready' && intact.uploaded.digest === predecessor.digest",
    replace: "intact?.phase === 'Ready'",
    breaks: '1',
  },
];
