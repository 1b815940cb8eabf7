/** Planted bugs of replicas and points (../mutants.ts). */
import type { Mutant } from '../mutant.ts';

export const replicaMutants: readonly Mutant[] = [
  {
    name: 'write-on-after-a-lost-answer',
    file: 'dataplane/journal/replicaHold.ts',
    find: '        await this.#fence.raise();\n        this.#leafCache.clear();',
    replace: '        this.#leafCache.clear();',
    breaks: '4',
  },
  {
    name: 'move-on-before-the-pages-are-written',
    file: 'dataplane/journal/replica.ts',
    find: '    await runAll(await this.#disks.prepare(round), this.#limits.concurrency);',
    replace:
      '    const writes = await this.#disks.prepare(round);\n    await this.#fence.save({ applied: round.position, disks: this.#disks.describe() });\n    await runAll(writes, this.#limits.concurrency);',
    breaks: '4',
  },
  {
    name: 'keep-a-block-that-became-zero',
    file: 'dataplane/journal/replicaWrites.ts',
    find: '      if ((record.zeroMask & bit) !== 0) leaf.blocks[block] = undefined;\n      else {',
    replace: '      if ((record.zeroMask & bit) === 0) {',
    breaks: '4',
  },
  {
    name: 'join-writes-across-a-gap',
    file: 'dataplane/journal/replicaWrites.ts',
    find: '  if (change.offset + change.length !== offset) return false;',
    replace: '  if (offset - change.offset - change.length > 4096) return false;',
    breaks: '4',
  },
  {
    name: 'complete-a-point-with-any-snapshot',
    file: 'dataplane/journal/replicaPoint.ts',
    find: '    if (lsnOf(metadata) === at.lsn) found.push({ key: at.key, snapshot });',
    replace: '    if (lsnOf(metadata) !== undefined) found.push({ key: at.key, snapshot });',
    breaks: '5',
  },
  {
    name: 'remove-snapshots-of-older-points',
    file: 'dataplane/journal/replicaPoint.ts',
    find: '        if (lsn === undefined || lsn > applied.lsn || kept.has(lsn)) continue;',
    replace: '        if (lsn === undefined || lsn === index.lsns.at(-1)) continue;',
    breaks: '5',
  },
  {
    name: 'do-not-check-the-root-of-a-point',
    file: 'dataplane/journal/replica.ts',
    find: '      if (disks.length > 0) this.#refusePoint(round, run, disks);',
    replace: '',
    breaks: '5',
  },
  {
    name: 'prune-a-point-in-use',
    file: 'recovery/steps/point.ts',
    find: '  await deps.objects.putIfAbsent(\n    vaultLayout.pointPin(document.request.machineId, chosen.lsn),\n    new TextEncoder().encode(document.name),\n  );\n',
    replace: '',
    breaks: '5',
  },
  {
    name: 'retire-without-a-mark',
    file: 'dataplane/journal/pointRetention.ts',
    find: '  const mark = await objects.putIfAbsent(key, new Uint8Array());',
    replace: "  const mark = { outcome: 'exists' as const, etag: key };",
    breaks: '5',
  },
  {
    name: 'prune-the-last-app-consistent-point',
    file: 'dataplane/journal/pointRetention.ts',
    find: '      if (newestApp?.lsn === lsn) continue;',
    replace: '',
    breaks: '5',
  },
];
