import type { ObjectSource, ObjectStore } from '../../platform/ports.ts';
import { type ChainPosition, positionOf } from './chain.ts';
import type { SegmentHeader } from './segment.ts';
import { fetchSegment } from './segmentReader.ts';

export type CommitOutcome =
  | { outcome: 'committed' }
  /** Another segment holds this sequence number. */
  | { outcome: 'taken'; by: { position: ChainPosition; header: SegmentHeader } };

/**
 * Puts a sealed segment under its key. Told "exists", it reads what is there: the same bytes are our own earlier try whose answer was
 * lost. Throws StoreError when it can't know; the caller tries the same bytes again.
 */
export async function commitSegment(
  objects: ObjectStore,
  segment: { name: string; body: Uint8Array | ObjectSource; digest: string },
  options: { signal?: AbortSignal } = {},
): Promise<CommitOutcome> {
  for (;;) {
    const put = await objects.putIfAbsent(segment.name, segment.body, options);
    if (put.outcome === 'created') return { outcome: 'committed' };
    const reader = await fetchSegment(objects, segment.name, options);
    // Gone again: somebody cleaned up by hand. Ours may still go there.
    if (reader === undefined) continue;
    const position = positionOf(reader.header, await reader.digest());
    if (position.digest === segment.digest) return { outcome: 'committed' };
    return { outcome: 'taken', by: { position, header: reader.header } };
  }
}
