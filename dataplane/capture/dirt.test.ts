import { describe, expect, test } from 'vitest';
import { Dirt } from './dirt.ts';

function dirtWith(leaves: readonly number[]): Dirt {
  const dirt = new Dirt({ sizeBytes: 1 << 24 });
  for (const leaf of leaves) dirt.markSent(leaf, 1);
  return dirt;
}
const dirtyLeaves = (dirt: Dirt) => [...dirt.dirty.leaves()].map(([leaf]) => leaf);

describe('Dirt', () => {
  test('keeps what was sent until the barrier that carried it is uploaded', () => {
    const dirt = dirtWith([1]);
    dirt.barrierSent(10n);
    dirt.markSent(2, 1);
    dirt.barrierUploaded(9n);
    expect(dirt.sentBlocks).toBe(2);
    dirt.barrierUploaded(10n);
    expect(dirt.sentBlocks).toBe(1);
    dirt.sendAgain();
    expect(dirtyLeaves(dirt)).toEqual([2]);
  });

  test('forgets what each barrier carried when that one is uploaded, though others wait', () => {
    const dirt = dirtWith([1]);
    dirt.barrierSent(10n);
    dirt.markSent(2, 1);
    dirt.barrierSent(20n);
    dirt.markSent(3, 1);
    dirt.barrierUploaded(19n);
    expect(dirt.sentBlocks).toBe(2);
    dirt.barrierUploaded(20n);
    expect(dirt.sentBlocks).toBe(1);
    dirt.sendAgain();
    expect(dirtyLeaves(dirt)).toEqual([3]);
  });

  test('where uploads are far behind counts the newest barriers as one, and forgets none too soon', () => {
    const dirt = dirtWith([]);
    for (let barrier = 1; barrier <= 6; barrier += 1) {
      dirt.markSent(barrier, 1);
      dirt.barrierSent(BigInt(barrier) * 10n);
    }
    const left: number[] = [];
    for (let barrier = 1; barrier <= 6; barrier += 1) {
      dirt.barrierUploaded(BigInt(barrier) * 10n);
      left.push(dirt.sentBlocks);
    }
    // The last three are one.
    expect(left).toEqual([5, 4, 3, 3, 3, 0]);
  });

  test('makes everything that may be lost dirty again when a cache is gone', () => {
    const dirt = dirtWith([1]);
    dirt.barrierSent(10n);
    dirt.markSent(2, 1);
    dirt.sendAgain();
    expect(dirtyLeaves(dirt)).toEqual([1, 2]);
    expect(dirt.sentBlocks).toBe(0);
    // That barrier's LSN may be given to another record now.
    dirt.markSent(3, 1);
    dirt.barrierUploaded(10n);
    expect(dirt.sentBlocks).toBe(1);
  });

  test('survives being saved', () => {
    const dirt = dirtWith([1]);
    dirt.barrierSent(10n);
    dirt.markSent(2, 3);
    dirt.dirty.add(7, 0xff);
    dirt.barrierSent(20n);
    dirt.markSent(3, 1);
    const copy = new Dirt({ sizeBytes: 1 << 24 });
    copy.restore(dirt.serialise());
    expect(copy.serialise()).toEqual(dirt.serialise());
    // Two barriers are saved as one: nothing of it is forgotten before the newer is uploaded.
    copy.barrierUploaded(10n);
    expect(copy.sentBlocks).toBe(dirt.sentBlocks);
    copy.barrierUploaded(20n);
    expect(copy.sentBlocks).toBe(1);
  });

  describe('of what passes between barriers send', () => {
    test('leaves out leaves of which all that is dirty was sent since the last barrier', () => {
      const dirt = dirtWith([1]);
      dirt.dirty.add(1, 1);
      dirt.dirty.add(2, 1);
      expect([...dirt.unsentLeaves()]).toEqual([[2, 1]]);
      dirt.barrierSent(10n);
      expect([...dirt.unsentLeaves()]).toEqual([
        [1, 1],
        [2, 1],
      ]);
    });

    test('sends all that is dirty of a leaf that has anything new: it is read whole anyway', () => {
      const dirt = dirtWith([1]);
      dirt.dirty.add(1, 0xffff);
      expect([...dirt.unsentLeaves()]).toEqual([[1, 0xffff]]);
    });

    test('sends what is written once an interval early in each, though uploads are late by a barrier', () => {
      const dirt = dirtWith([]);
      for (let barrier = 1; barrier <= 6; barrier += 1) {
        dirt.dirty.add(3, 0xff);
        expect([...dirt.unsentLeaves()]).toEqual([[3, 0xff]]);
        dirt.take(3, 0xff);
        dirt.markSent(3, 0xff);
        dirt.barrierSent(BigInt(barrier * 10));
        dirt.barrierUploaded(BigInt((barrier - 1) * 10));
      }
    });
  });
});
