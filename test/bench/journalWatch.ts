import { decodeSegmentHeader, SEGMENT_HEADER_MAX } from '../../dataplane/journal/segment.ts';
import { systemClock } from '../../platform/node/clock.ts';
import type { ObjectStore } from '../../platform/ports.ts';
import type { BarrierSummary } from '../../vault/documents/machineStatus.ts';
import { vaultLayout } from '../../vault/layout.ts';

/** Each look costs the server some CPU, which the copy lacks then. */
const POLL_MS = 100;

export interface SeenSegment {
  seq: number;
  size: number;
  barriers: readonly BarrierSummary[];
  /** Wall clock: at most POLL_MS after it was durable. */
  seenMs: number;
}

/** The segments of a machine's journal, from the first on, as they appear in the vault. Ends with the signal. */
export async function* segmentsAsTheyCome(
  objects: ObjectStore,
  options: { machineId: string; signal: AbortSignal },
): AsyncGenerator<SeenSegment> {
  const { machineId, signal } = options;
  for (let seq = 0; !signal.aborted; ) {
    const key = vaultLayout.segment(machineId, seq);
    const stored = await objects.get(key, { offset: 0, length: SEGMENT_HEADER_MAX });
    if (stored === undefined) {
      await systemClock.sleep(POLL_MS, signal).catch(() => undefined);
      continue;
    }
    const { barriers } = decodeSegmentHeader(stored.body, key);
    yield { seq, size: stored.size, barriers, seenMs: Date.now() };
    seq += 1;
  }
}

/**
 * When the first barrier was durable, and the journal's bytes up to there. No barrier is made during a resync, so everything that an
 * initial replication sends is durable then.
 */
export async function firstBarrier(
  objects: ObjectStore,
  options: { machineId: string; withinMs: number },
): Promise<{ seenMs: number; journalBytes: number }> {
  const { machineId, withinMs } = options;
  const signal = AbortSignal.timeout(withinMs);
  let journalBytes = 0;
  for await (const { size, barriers, seenMs } of segmentsAsTheyCome(objects, {
    machineId,
    signal,
  })) {
    journalBytes += size;
    if (barriers.length > 0) return { seenMs, journalBytes };
  }
  throw new Error(`no barrier within ${withinMs} ms; the journal has ${journalBytes} bytes`);
}
