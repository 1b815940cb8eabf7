/**
 * A machine's journal in the vault, read as what it is: one sequence of segments, each naming its predecessor's digest.
 *
 * Nothing past a gap, past a segment of another writer's line, or past damage is ever yielded.
 */
import { FarshoreError } from '../../platform/errors.ts';
import type { ObjectStore } from '../../platform/ports.ts';
import type { Lsn } from '../../vault/documents.ts';
import { sequenceOfSegmentKey, vaultLayout } from '../../vault/layout.ts';
import { NO_DIGEST, type SegmentHeader } from './segment.ts';
import type { SegmentCodec } from './segmentCodec.ts';
import { fetchSegment, type SegmentBatch, type SegmentReader } from './segmentReader.ts';

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
  /** A segment is missing although later ones are there: trimmed, or deleted by hand. */
  | 'ChainGap'
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
   * Segments after a position, in order, until none follows. Throws ChainError, SegmentError, StoreError. Memory: a few pieces of 4 MiB.
   */
  async *segments(
    after: ChainPosition,
    options: { signal?: AbortSignal } = {},
  ): AsyncGenerator<ChainSegment> {
    for (let previous = after; ; ) {
      const name = vaultLayout.segment(this.#machineId, previous.seq + 1);
      const reader = await this.#fetch(name, options);
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
  ): Promise<{ position: ChainPosition; header: SegmentHeader } | undefined> {
    for (;;) {
      const seq = await this.#newestSequence(options.from);
      if (seq === undefined) return undefined;
      const name = vaultLayout.segment(this.#machineId, seq);
      const reader = await fetchSegment(this.#deps.objects, name, options);
      // Trimmed meanwhile: so there are newer ones.
      if (reader === undefined) continue;
      checkIdentity(name, this.#machineId, seq, reader.header);
      const position = positionOf(reader.header, await reader.digest());
      return { position, header: reader.header };
    }
  }

  /** Undefined at the end of the chain. A writer may add two segments between our look at one and at the next, hence the second try. */
  async #fetch(
    name: string,
    options: { signal?: AbortSignal },
  ): Promise<SegmentReader | undefined> {
    const { objects } = this.#deps;
    const reader = await fetchSegment(objects, name, options);
    if (reader !== undefined) return reader;
    const later = await this.#firstSequence(name);
    if (later === undefined) return undefined;
    const again = await fetchSegment(objects, name, options);
    if (again !== undefined) return again;
    throw new ChainError(
      'ChainGap',
      `Segment ${name} is not in the vault although segment ${later} is: it was trimmed, or removed by hand. Begin at a newer recovery point, or restore the blob from the storage account's soft-deleted versions.`,
    );
  }

  /** Segments are added one after the other, so existence is monotone: gallop, then halve. */
  async #newestSequence(from: number | undefined): Promise<number | undefined> {
    const exists = async (seq: number) =>
      (await this.#deps.objects.head(vaultLayout.segment(this.#machineId, seq))) !== undefined;
    let low = from !== undefined && (await exists(from)) ? from : await this.#firstSequence();
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

  async #firstSequence(startAfter?: string): Promise<number | undefined> {
    const prefix = vaultLayout.journalPrefix(this.#machineId);
    const options = startAfter === undefined ? {} : { startAfter };
    for await (const { key } of this.#deps.objects.list(prefix, options)) {
      const seq = sequenceOfSegmentKey(key);
      if (seq !== undefined) return seq;
    }
    return undefined;
  }
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
