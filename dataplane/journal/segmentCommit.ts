import type { ObjectSource, ObjectStore } from '../../platform/ports.ts';
import { vaultLayout } from '../../vault/layout.ts';
import { newestSegment, readSegmentEnd, type SegmentEnd } from './chain.ts';
import { readTrimMark } from './trimMark.ts';

export type CommitOutcome =
  | { outcome: 'committed' }
  /** Another segment holds this sequence number, or others wrote past it so long ago that it was trimmed: `by` is the newest then. */
  | { outcome: 'taken'; by: SegmentEnd };

/**
 * Puts a sealed segment under its key. Told "exists", it reads what is there: the same bytes are our own earlier try whose answer was
 * lost. Below the trim mark nothing counts: the number was free only because what held it was trimmed, and others are long past it.
 * Throws StoreError when it can't know; the caller tries the same bytes again.
 */
export async function commitSegment(
  objects: ObjectStore,
  segment: { machineId: string; seq: number; body: Uint8Array | ObjectSource; digest: string },
  options: { signal?: AbortSignal } = {},
): Promise<CommitOutcome> {
  const { machineId, seq, body, digest } = segment;
  const name = vaultLayout.segment(machineId, seq);
  const at = { machineId, seq, ...options };
  for (;;) {
    const put = await objects.putIfAbsent(name, body, options);
    const present = put.outcome === 'exists' ? await readSegmentEnd(objects, at) : undefined;
    // Gone again: trimmed, or removed by hand.
    if (put.outcome === 'exists' && present === undefined) continue;
    // Read after the put: the mark rises before a number becomes free again.
    if (seq < (await readTrimMark(objects, machineId))) {
      await objects.remove(name);
      const by = await newestSegment(objects, at);
      if (by === undefined) continue;
      return { outcome: 'taken', by };
    }
    if (present === undefined || present.position.digest === digest)
      return { outcome: 'committed' };
    return { outcome: 'taken', by: present };
  }
}
