/** Each machine's journal as it grows in the vault, held to its rules segment by segment (invariants 2 and 3). */
import { decodeSegmentHeader, type SegmentHeader } from '../../dataplane/journal/segment.ts';
import { sequenceOfSegmentKey } from '../../vault/layout.ts';
import { createHash } from './cheapCrypto.ts';

interface Added {
  key: string;
  header: SegmentHeader;
  digest: string;
  body: Uint8Array;
}

interface Tried {
  digest: string;
  atMs: number;
}

export class ChainWatch {
  readonly #breach: (invariant: string, detail: string) => void;
  readonly #nowMs: () => number;
  readonly #chains = new Map<string, Added[]>();
  /** By machine: every barrier of its journal, in order. */
  readonly #barriers = new Map<string, { lsn: bigint; timeMs: number }[]>();
  readonly #applied = new Map<string, bigint>();
  /** By writer, epoch and sequence number: the bytes that it tried to put there first. */
  readonly #tried = new Map<string, Tried>();
  /** Keys of segments that were removed. */
  readonly #trimmed = new Set<string>();
  /** By salt: whose bytes it sealed. */
  readonly #salts = new Map<string, string>();

  constructor(options: {
    breach: (invariant: string, detail: string) => void;
    nowMs: () => number;
  }) {
    this.#breach = options.breach;
    this.#nowMs = options.nowMs;
  }

  /** All of the journal, also what was trimmed since. */
  segments(machineId: string): readonly { key: string; body: Uint8Array }[] {
    return this.#chains.get(machineId) ?? [];
  }

  endLsn(machineId: string): bigint {
    return this.#chains.get(machineId)?.at(-1)?.header.lastLsn ?? 0n;
  }

  newestEpoch(machineId: string): number {
    return this.#chains.get(machineId)?.at(-1)?.header.writerEpoch ?? 0;
  }

  holdsBarrier(machineId: string, lsn: bigint): boolean {
    return this.#barriers.get(machineId)?.some((barrier) => barrier.lsn === lsn) === true;
  }

  /** Another may have its LSN by now; its time tells: what it was asked to be, or, to be later than the one before, a millisecond more. */
  holdsBarrierOf(machineId: string, barrier: { lsn: bigint; askedMs: number }): boolean {
    const all = this.#barriers.get(machineId) ?? [];
    return all.some(({ lsn, timeMs }, index) => {
      const earliestMs = (all[index - 1]?.timeMs ?? Number.NEGATIVE_INFINITY) + 1;
      return lsn === barrier.lsn && timeMs === Math.max(Math.floor(barrier.askedMs), earliestMs);
    });
  }

  /** Whichever of the two can be asked. */
  holds(machineId: string, barrier: { lsn: bigint; askedMs: number | undefined }): boolean {
    const { lsn, askedMs } = barrier;
    return askedMs === undefined
      ? this.holdsBarrier(machineId, lsn)
      : this.holdsBarrierOf(machineId, { lsn, askedMs });
  }

  appliedLsn(machineId: string): bigint {
    return this.#applied.get(machineId) ?? 0n;
  }

  /** A segment is about to be put, perhaps not for the first time. */
  tried(key: string, body: Uint8Array, writer: { by: string; lostAtMs: number }): void {
    const header = decodeSegmentHeader(body, key);
    const digest = digestOf(body);
    const salt = Buffer.from(header.salt).toString('hex');
    const sealed = this.#salts.get(salt);
    if (sealed !== undefined && sealed !== digest)
      this.#breach('2', `${key}: two contents are sealed with the same key and nonces`);
    this.#salts.set(salt, digest);
    if (header.kind !== 'Data') return;
    const name = `${key} ${writer.by} ${header.writerEpoch}`;
    const before = this.#tried.get(name);
    if (before === undefined || before.atMs < writer.lostAtMs)
      this.#tried.set(name, { digest, atMs: this.#nowMs() });
    else if (before.digest !== digest)
      this.#breach('2', `${writer.by} tries to put other bytes at ${key} than before`);
  }

  added(key: string, body: Uint8Array): void {
    const header = decodeSegmentHeader(body, key);
    const { machineId } = header;
    const chain = this.#chains.get(machineId) ?? [];
    this.#chains.set(machineId, chain);
    // Of a writer that slept, below the trim mark: nobody counts it.
    if (this.#trimmed.has(key)) return;
    const problem = problemBehind(chain.at(-1), header, sequenceOfSegmentKey(key));
    if (problem !== undefined) this.#breach('3', `${key}: ${problem}`);
    chain.push({ key, header, digest: digestOf(body), body });
    const barriers = this.#barriers.get(machineId) ?? [];
    for (const { lsn, timeMs } of header.barriers) barriers.push({ lsn, timeMs });
    this.#barriers.set(machineId, barriers);
  }

  /** Only what every reader has passed may go. */
  trimmed(key: string): void {
    this.#trimmed.add(key);
    const [, machineId = ''] = key.split('/');
    const added = this.#chains
      .get(machineId)
      ?.find(({ header }) => header.seq === sequenceOfSegmentKey(key));
    if (added !== undefined && added.header.lastLsn > this.appliedLsn(machineId))
      this.#breach('2', `${key} is removed and was not applied yet`);
  }

  applied(machineId: string, state: { lsn: bigint; seq: number; digest: string }): void {
    const before = this.appliedLsn(machineId);
    if (state.lsn < before)
      this.#breach('positions', `${machineId}: applied went back from ${before} to ${state.lsn}`);
    if (state.lsn > this.endLsn(machineId))
      this.#breach(
        'positions',
        `${machineId}: applied up to ${state.lsn}, the vault has ${this.endLsn(machineId)}`,
      );
    if (state.seq >= 0) {
      const segment = this.#chains.get(machineId)?.[state.seq];
      if (segment?.digest !== state.digest)
        this.#breach('2', `${machineId}: applied segment ${state.seq}, which is another`);
    }
    this.#applied.set(machineId, state.lsn);
  }
}

/** Why a segment may not follow another; undefined when it may. */
function problemBehind(
  last: Added | undefined,
  header: SegmentHeader,
  seq: number | undefined,
): string | undefined {
  const expected = last === undefined ? 0 : last.header.seq + 1;
  if (seq !== expected || header.seq !== expected) return `segment ${expected} was to come`;
  if (header.firstLsn !== (last?.header.lastLsn ?? 0n) + 1n)
    return `it begins at LSN ${header.firstLsn}, behind ${last?.header.lastLsn}`;
  if (last === undefined)
    return header.kind === 'Claim' ? undefined : 'the first segment is no claim';
  if (header.previousDigest !== last.digest) return 'it follows another segment';
  const { writerEpoch } = last.header;
  if (header.writerEpoch < writerEpoch)
    return `writer epoch ${header.writerEpoch} follows ${writerEpoch}`;
  if (header.writerEpoch > writerEpoch && header.kind !== 'Claim')
    return `writer epoch ${header.writerEpoch} begins without a claim`;
  if (last.header.kind === 'Seal' && header.writerEpoch <= writerEpoch)
    return 'it follows a seal without a higher epoch';
  return undefined;
}

function digestOf(body: Uint8Array): string {
  return createHash('sha256').update(body).digest('hex');
}
