/**
 * A machine's journal in the vault, read as what it is: one sequence of segments, each naming its predecessor's digest.
 *
 * Nothing past a gap, past a segment of another writer's line, or past damage is ever yielded. It may be trimmed at any moment, also
 * while it is read: what is missing below the trim mark is no gap.
 */
import { errorCode, FarshoreError } from '../../platform/errors.ts';
import type { ObjectStore } from '../../platform/ports.ts';
import type { Lsn } from '../../vault/documents/fields.ts';
import { sequenceOfSegmentKey, vaultLayout } from '../../vault/layout.ts';
import { NO_DIGEST, type SegmentHeader } from './segment.ts';
import type { SegmentCodec } from './segmentCodec.ts';
import { fetchSegment, type SegmentBatch, type SegmentReader } from './segmentReader.ts';
import { readTrimMark } from './trimMark.ts';

/** The last segment that was accepted: where reading goes on. What is undefined is not known and not checked. */
export interface ChainPosition {
  /** -1 before the first segment. */
  seq: number;
  /** SHA-256 of segment `seq`, hex. */
  digest: string;
  /** Its last LSN. */
  lsn: Lsn;
  writerEpoch?: number | undefined;
  /** It is a Seal: only the Claim of a higher epoch may follow. */
  sealed?: boolean | undefined;
}

export const CHAIN_START: ChainPosition = {
  seq: -1,
  digest: NO_DIGEST,
  lsn: 0n,
  writerEpoch: 0,
  sealed: false,
};

export type ChainErrorCode =
  /** A segment is missing that should be there, for later ones are: deleted by hand. */
  | 'ChainGap'
  /** A segment lies before the journal's trim mark: begin at a recovery point; the newest one's journal is always there. */
  | 'ChainTrimmed'
  /** A segment does not continue its predecessor: other digest, other LSN, other machine, falling epoch. */
  | 'ChainBroken'
  /** There is no journal of this machine. */
  | 'ChainEmpty';

export class ChainError extends FarshoreError {
  declare readonly code: ChainErrorCode;

  constructor(code: ChainErrorCode, message: string, options?: ErrorOptions) {
    super(code, message, options);
  }
}

/** A segment that continues the chain. Read its batches before asking for the next one; what is not read is skipped. */
export interface ChainSegment {
  /** Its key in the vault. */
  name: string;
  header: SegmentHeader;
  /** Once; in LSN order, in batches of about a MiB. Throws SegmentError. */
  batches(): AsyncGenerator<SegmentBatch>;
  /** Where the chain stands after this segment. Reads the rest of it. */
  position(): Promise<ChainPosition>;
}

export interface ChainDeps {
  objects: ObjectStore;
  codec: SegmentCodec;
}

export class Chain {
  readonly #deps: ChainDeps;
  readonly #machineId: string;
  readonly #dataKey: Uint8Array;

  constructor(deps: ChainDeps, machine: { machineId: string; dataKey: Uint8Array }) {
    this.#deps = deps;
    this.#machineId = machine.machineId;
    this.#dataKey = machine.dataKey;
  }

  /**
   * Segments after a position, in order, until none follows. Throws ChainError, SegmentError, StoreError. Memory: a few pieces of 8 MiB.
   */
  async *segments(
    after: ChainPosition,
    options: { signal?: AbortSignal } = {},
  ): AsyncGenerator<ChainSegment> {
    for (let previous = after; ; ) {
      const name = vaultLayout.segment(this.#machineId, previous.seq + 1);
      const reader = await this.#fetch(previous.seq + 1, options);
      if (reader === undefined) return;
      checkContinues(name, this.#machineId, previous, reader.header);
      const position = async () => positionOf(reader.header, await reader.digest());
      yield {
        name,
        header: reader.header,
        batches: () => reader.batches({ dataKey: this.#dataKey, codec: this.#deps.codec }),
        position,
      };
      previous = await position();
    }
  }

  /** The newest segment. `from` is one that was there before: the search begins there. Undefined when there is no journal. */
  async newest(
    options: { from?: number; signal?: AbortSignal } = {},
  ): Promise<SegmentEnd | undefined> {
    return await newestSegment(this.#deps.objects, { machineId: this.#machineId, ...options });
  }

  /** Undefined at the end of the chain. A writer may add two segments between our look at one and at the next, hence the second try. */
  async #fetch(seq: number, options: { signal?: AbortSignal }): Promise<SegmentReader | undefined> {
    const { objects } = this.#deps;
    const machineId = this.#machineId;
    const name = vaultLayout.segment(machineId, seq);
    const reader = await fetchSegment(objects, name, options);
    if (reader !== undefined) return reader;
    const later = await firstSequence(objects, { machineId, from: seq + 1 });
    if (later === undefined) return undefined;
    const again = await fetchSegment(objects, name, options);
    if (again !== undefined) return again;
    // Read after the miss: the mark rises before anything below it goes.
    const firstSeq = await readTrimMark(objects, machineId);
    if (seq < firstSeq)
      throw new ChainError(
        'ChainTrimmed',
        `Segment ${name} was trimmed: the journal of machine ${machineId} begins at segment ${firstSeq}. Begin at a newer recovery point.`,
      );
    throw new ChainError(
      'ChainGap',
      `Segment ${name} is not in the vault although segment ${later} is: it was removed by hand. Begin at a newer recovery point, or restore the blob from the storage account's soft-deleted versions.`,
    );
  }
}

/** A segment read to its end, its records left aside. */
export interface SegmentEnd {
  header: SegmentHeader;
  position: ChainPosition;
}

/** Undefined when the segment is not there, or not any more. Throws SegmentError, StoreError. */
export async function readSegmentEnd(
  objects: ObjectStore,
  at: { machineId: string; seq: number; signal?: AbortSignal },
): Promise<SegmentEnd | undefined> {
  try {
    const name = vaultLayout.segment(at.machineId, at.seq);
    const reader = await fetchSegment(objects, name, at);
    if (reader === undefined) return undefined;
    return { header: reader.header, position: positionOf(reader.header, await reader.digest()) };
  } catch (error) {
    if (errorCode(error) === 'SegmentRemoved') return undefined;
    throw error;
  }
}

/** As Chain.newest. What lies below the trim mark is passed over: it may be what a writer that was fenced long ago put there. */
export async function newestSegment(
  objects: ObjectStore,
  options: { machineId: string; from?: number; signal?: AbortSignal },
): Promise<SegmentEnd | undefined> {
  const { machineId } = options;
  for (;;) {
    const firstSeq = await readTrimMark(objects, machineId);
    const seq = await newestSequence(objects, { ...options, firstSeq });
    if (seq === undefined && firstSeq > 0)
      throw new ChainError(
        'ChainGap',
        `Machine ${machineId} has no segment from number ${firstSeq} on, where its journal begins: they were removed by hand. Restore the blobs from the storage account's soft-deleted versions.`,
      );
    if (seq === undefined) return undefined;
    const newest = await readSegmentEnd(objects, { ...options, seq });
    // Otherwise it was trimmed meanwhile, so there are newer ones.
    if (newest !== undefined && seq >= (await readTrimMark(objects, machineId))) {
      checkIdentity(vaultLayout.segment(machineId, seq), machineId, seq, newest.header);
      return newest;
    }
  }
}

/** Segments are added one after the other, and trimmed in the same order, so existence is monotone: gallop, then halve. */
async function newestSequence(
  objects: ObjectStore,
  options: { machineId: string; firstSeq: number; from?: number },
): Promise<number | undefined> {
  const { machineId, firstSeq, from } = options;
  const exists = async (seq: number) =>
    (await objects.head(vaultLayout.segment(machineId, seq))) !== undefined;
  let low =
    from !== undefined && from >= firstSeq && (await exists(from))
      ? from
      : await firstSequence(objects, { machineId, from: firstSeq });
  if (low === undefined) return undefined;
  let step = 1;
  while (await exists(low + step)) {
    low += step;
    step *= 2;
  }
  let high = low + step;
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if (await exists(middle)) low = middle;
    else high = middle;
  }
  return low;
}

async function firstSequence(
  objects: ObjectStore,
  options: { machineId: string; from: number },
): Promise<number | undefined> {
  const { machineId, from } = options;
  const startAfter = from === 0 ? undefined : vaultLayout.segment(machineId, from - 1);
  const after = startAfter === undefined ? {} : { startAfter };
  for await (const { key } of objects.list(vaultLayout.journalPrefix(machineId), after)) {
    const seq = sequenceOfSegmentKey(key);
    if (seq !== undefined) return seq;
  }
  return undefined;
}

export function positionOf(header: SegmentHeader, digest: string): ChainPosition {
  return {
    seq: header.seq,
    digest,
    lsn: header.lastLsn,
    writerEpoch: header.writerEpoch,
    sealed: header.kind === 'Seal',
  };
}

function checkIdentity(name: string, machineId: string, seq: number, header: SegmentHeader): void {
  if (header.machineId !== machineId || header.seq !== seq)
    throw broken(name, `it says that it is segment ${header.seq} of machine ${header.machineId}`);
}

function checkContinues(
  name: string,
  machineId: string,
  previous: ChainPosition,
  header: SegmentHeader,
): void {
  checkIdentity(name, machineId, previous.seq + 1, header);
  if (header.previousDigest !== previous.digest)
    throw broken(
      name,
      `it follows a segment ${header.previousDigest.slice(0, 16)}…, before it lies ${previous.digest.slice(0, 16)}…`,
    );
  if (header.firstLsn !== previous.lsn + 1n)
    throw broken(name, `it begins at LSN ${header.firstLsn}, not at ${previous.lsn + 1n}`);
  const epoch = previous.writerEpoch;
  if (epoch !== undefined && header.writerEpoch < epoch)
    throw broken(name, `its writer epoch ${header.writerEpoch} is lower than ${epoch} before it`);
  if (epoch !== undefined && header.writerEpoch > epoch && header.kind !== 'Claim')
    throw broken(name, `writer epoch ${header.writerEpoch} begins without a claim`);
  const reopened = header.kind === 'Claim' && (epoch === undefined || header.writerEpoch > epoch);
  if (previous.sealed === true && !reopened)
    throw broken(name, 'it follows a seal without claiming a higher writer epoch');
}

function broken(name: string, problem: string): ChainError {
  return new ChainError(
    'ChainBroken',
    `Segment ${name} does not continue the journal: ${problem}. Nothing after it is used; recovery points before it are not touched.`,
  );
}
