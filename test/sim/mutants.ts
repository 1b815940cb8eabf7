/**
 * Planted bugs: small changes to product behaviour, each of which the simulation must find. They live here alone; test/sim/mutate.ts puts
 * one of them in as modules are loaded. A fragment that is not in its file exactly once is an error: fix the entry with the product.
 */

export interface Mutant {
  name: string;
  /** Of the product, from the repository's root. */
  file: string;
  /** Exactly once in the file. */
  find: string;
  replace: string;
  /** Of docs/INVARIANTS.md, or what else the run would breach. */
  breaks: string;
}

export function mutantNamed(name: string): Mutant {
  const mutant = mutants.find((one) => one.name === name);
  if (mutant === undefined) throw new Error(`there is no planted bug ${name}`);
  return mutant;
}

export const mutants: readonly Mutant[] = [
  // ------------------------------------------------------------------------------------------------ cache and uploads
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
  // ------------------------------------------------------------------------------------------------------- who writes
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
  // ------------------------------------------------------------------------------------------------------ leaf hashes
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
  // ---------------------------------------------------------------------------------------------------------- capture
  {
    name: 'forget-dirt-on-acknowledgement',
    file: 'dataplane/agent/replication.ts',
    find: '      acknowledged: ({ lsn }) => this.#barriers.acknowledged(lsn),\n',
    replace:
      '      acknowledged: ({ lsn }) => {\n        this.#barriers.acknowledged(lsn);\n        for (const disk of this.#capture.disks) disk.dirt.barrierUploaded(lsn);\n      },\n',
    breaks: '1',
  },
  {
    name: 'forget-dirt-at-the-upload-of-an-older-barrier',
    file: 'dataplane/capture/dirt.ts',
    find: '    if (this.#mark === 0n || barrierLsn < this.#mark) return;',
    replace: '    if (this.#mark === 0n) return;',
    breaks: '1',
  },
  {
    name: 'forget-what-was-sent-after-the-mark',
    file: 'dataplane/capture/dirt.ts',
    find: '    if (this.#mark === 0n || barrierLsn < this.#mark) return;',
    replace:
      '    if (this.#mark === 0n || barrierLsn < this.#mark) return;\n    this.#sent.clear();',
    breaks: '1',
  },
  {
    name: 'forget-what-is-on-its-way-when-saving',
    file: 'dataplane/capture/dirt.ts',
    find: '    dirty.addAll(this.#onItsWay);\n    return {',
    replace: '    return {',
    breaks: '1',
  },
  {
    name: 'clean-after-the-read',
    file: 'dataplane/capture/pass.ts',
    find: '    for (const [index, mask] of run.masks.entries()) disk.dirt.take(run.firstLeaf + index, mask);\n    this.#read = throttle.time(() => disk.readLeaves(this.#bytes, run.firstLeaf));',
    replace:
      '    this.#read = throttle.time(async () => {\n      await disk.readLeaves(this.#bytes, run.firstLeaf);\n      for (const [index, mask] of run.masks.entries())\n        disk.dirt.take(run.firstLeaf + index, mask);\n    });',
    breaks: '5',
  },
  {
    name: 'off-by-one-at-a-leaf',
    file: 'dataplane/capture/bitmap.ts',
    find: 'Math.ceil((range.offset + range.length) / BLOCK_SIZE));',
    replace: 'Math.floor((range.offset + range.length) / BLOCK_SIZE));',
    breaks: '5',
  },
  {
    name: 'forget-the-last-leaf',
    file: 'dataplane/capture/resync.ts',
    find: '      while (next < this.#disk.leafCount) {',
    replace: '      while (next < this.#disk.leafCount - 1) {',
    breaks: '5',
  },
  {
    name: 'thaw-too-early',
    file: 'dataplane/capture/barrier.ts',
    find: '      await this.#readAtRest(memory);\n      await tracking.verify();',
    replace:
      '      await freezer.thaw(plan);\n      await this.#readAtRest(memory);\n      await tracking.verify();',
    breaks: '5',
  },
  {
    name: 'ignore-an-early-thaw',
    file: 'dataplane/capture/barrier.ts',
    find: '    if (thawed.void.length > 0) throw thawedEarly(thawed.void, deadlineMs);',
    replace: '',
    breaks: '5',
  },
  {
    name: 'send-a-last-barrier-that-somebody-thawed',
    file: 'dataplane/capture/barrier.ts',
    find: '      if (this.#request.final) await this.#mustBeFrozen(plan);',
    replace: '',
    breaks: '5',
  },
  {
    name: 'freeze-without-deadline',
    file: 'dataplane/capture/barrier.ts',
    find: '    const deadlineMs = this.#request.final ? limits.finalDeadlineMs : limits.deadlineMs;',
    replace: '    const deadlineMs = limits.finalDeadlineMs;',
    breaks: 'Production never waits',
  },
  {
    name: 'a-void-barrier-keeps-its-dirt',
    file: 'dataplane/capture/barrier.ts',
    find: '      memory.giveBack();\n      await freezer.thaw(plan);',
    replace: '      await freezer.thaw(plan);',
    breaks: '5',
  },
  {
    name: 'do-not-compare-the-accounts',
    file: 'dataplane/capture/accounting.ts',
    find: '    if (lower > this.#high)\n      throw new TrackingLostError(',
    replace:
      '    if (lower > this.#high) this.#high = this.#low = lower;\n    if (lower > this.#high)\n      throw new TrackingLostError(',
    breaks: '6',
  },
  {
    name: 'go-on-from-an-unbalanced-account',
    file: 'dataplane/agent/machineCapture.ts',
    find: '  if (low === undefined || low !== high)',
    replace: '  if (low !== undefined && low > (high ?? low))',
    breaks: '6',
  },
  {
    name: 'do-not-send-again-to-another-cache',
    file: 'dataplane/agent/replication.ts',
    find: '    if (isOtherCache || journaledLsn < this.#memory.capturedLsn)\n',
    replace: '    if (journaledLsn < 0n)\n',
    breaks: '1',
  },
  {
    name: 'call-a-dirty-leaf-lost',
    file: 'dataplane/capture/dirt.ts',
    find: '    return [this.dirty, this.#onItsWay, this.#sent, this.#sentBefore].every(',
    replace: '    return [this.#onItsWay, this.#sent, this.#sentBefore].every(',
    breaks: '6',
  },
  {
    name: 'skip-pending-leaves-in-a-resync',
    file: 'dataplane/capture/resync.ts',
    find: '        this.#disk.dirt.markSent(leaf, mask);\n        continue;',
    replace: '        continue;',
    breaks: '1',
  },
  // ------------------------------------------------------------------------------------------------- planned failovers
  {
    name: 'hold-before-the-vault-has-the-barrier',
    file: 'dataplane/capture/barrier.ts',
    find: '      await this.#inTime(this.#deps.uploaded(lsn), this.#frozenAt + limits.finalDeadlineMs);\n',
    replace: '',
    breaks: '7',
  },
  {
    name: 'thaw-a-held-machine-at-a-restart',
    file: 'dataplane/agent/heldMachine.ts',
    find: '    if (saved.holding === true) {',
    replace: '    if (saved.holding !== false) {',
    breaks: '7',
  },
  {
    name: 'forget-that-the-machine-is-held',
    file: 'dataplane/agent/replication.ts',
    find: '    if (saved.held !== undefined) await this.#held.adopt(saved.held);\n',
    replace: '',
    breaks: 'Production never waits',
  },
  {
    name: 'hold-on-after-a-cancel',
    file: 'dataplane/agent/heldMachine.ts',
    find: '    if (wanted()?.failover !== held.failover) {\n      await this.#thaw(',
    replace:
      '    if (wanted() !== undefined && wanted()?.failover !== held.failover) {\n      await this.#thaw(',
    breaks: 'Production never waits',
  },
  {
    name: 'believe-a-silent-process-server',
    file: 'recovery/steps/seal.ts',
    find: '    else if (told?.heartbeatMs !== first?.heartbeatMs) return;',
    replace: '    else if (told !== undefined) return;',
    breaks: '7',
  },
  {
    name: 'wait-for-the-former-process-server',
    file: 'recovery/steps/finalSync.ts',
    find: '    if (owner !== undefined && owner !== processServer) {',
    replace: '    if (owner === undefined) {',
    breaks: 'RPO returns',
  },
  // ---------------------------------------------------------------------------------------------- replicas and points
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
