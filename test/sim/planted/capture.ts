/** Planted bugs of capture (../mutants.ts). */
import type { Mutant } from '../mutant.ts';

export const captureMutants: readonly Mutant[] = [
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
    find: '    this.#barriers = this.#barriers.filter(({ lsn }) => lsn > uploadedLsn);',
    replace: '    this.#barriers = [];',
    breaks: '1',
  },
  {
    name: 'forget-what-was-sent-after-the-uploaded-barrier',
    file: 'dataplane/capture/dirt.ts',
    find: '    this.#barriers = this.#barriers.filter(({ lsn }) => lsn > uploadedLsn);',
    replace:
      '    this.#barriers = this.#barriers.filter(({ lsn }) => lsn > uploadedLsn);\n    this.#sent.clear();',
    breaks: '1',
  },
  {
    name: 'count-several-barriers-as-the-oldest-of-them',
    file: 'dataplane/capture/dirt.ts',
    find: '      last.lsn = lsn;\n',
    replace: '',
    breaks: '1',
  },
  {
    name: 'forget-what-is-on-its-way-when-saving',
    file: 'dataplane/capture/dirt.ts',
    find: '    dirty.addAll(this.#onItsWay);\n    const sentBefore',
    replace: '    const sentBefore',
    breaks: '1',
  },
  {
    name: 'clean-after-the-read',
    file: 'dataplane/capture/pass.ts',
    find: '    for (const [index, mask] of run.masks.entries()) disk.dirt.take(run.firstLeaf + index, mask);\n    this.#read = throttle.time(length, () => disk.readLeaves(this.#bytes, run.firstLeaf));',
    replace:
      '    this.#read = throttle.time(length, async () => {\n      await disk.readLeaves(this.#bytes, run.firstLeaf);\n      for (const [index, mask] of run.masks.entries())\n        disk.dirt.take(run.firstLeaf + index, mask);\n    });',
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
    find: '    if (isOtherJournal || journaledLsn < this.#memory.capturedLsn)\n',
    replace: '    if (journaledLsn < 0n)\n',
    breaks: '1',
  },
  {
    name: 'call-a-dirty-leaf-lost',
    file: 'dataplane/capture/dirt.ts',
    find: '    const sets = [this.dirty, this.#onItsWay, this.#sent];',
    replace: '    const sets = [this.#onItsWay, this.#sent];',
    breaks: '6',
  },
  {
    name: 'skip-pending-leaves-in-a-resync',
    file: 'dataplane/capture/resync.ts',
    find: '        this.#disk.dirt.markSent(leaf, mask);\n        continue;',
    replace: '        continue;',
    breaks: '1',
  },
];
