/**
 * The two segments that change who may write a journal: a Claim begins a writer epoch, a Seal ends the line until the next one.
 */
import type { Clock, ObjectStore, Random } from '../../platform/ports.ts';
import {
  CHAIN_START,
  Chain,
  ChainError,
  type ChainPosition,
  readSegmentEnd,
  type SegmentEnd,
} from './chain.ts';
import type { Fenced } from './machineJournal.ts';
import { SEGMENT_CHUNK_SIZE, type SegmentHeader, type SegmentSide } from './segment.ts';
import type { SegmentCodec } from './segmentCodec.ts';
import { commitSegment } from './segmentCommit.ts';
import { encodeSegment } from './segmentWriter.ts';

export interface ClaimDeps {
  objects: ObjectStore;
  codec: SegmentCodec;
  random: Random;
  clock: Clock;
}

export interface ClaimRequest {
  machineId: string;
  dataKey: Uint8Array;
  writerEpoch: number;
  side: SegmentSide;
  signal?: AbortSignal;
}

/**
 * Begins (or begins again, after a loss of local state) writing as an epoch: puts a Claim behind whatever is newest, however often a
 * delayed segment of an earlier writer comes first. Once it returns, no segment sealed before can join the chain any more.
 * `predecessor` is what lies before it and before earlier claims of the same epoch, which are our own whose answer was lost, or hold no
 * record in any case. Throws StoreError; `fenced` when a higher epoch, or a seal that this epoch does not outrank, is there.
 */
export async function claimJournal(
  deps: ClaimDeps,
  request: ClaimRequest,
): Promise<
  | { outcome: 'claimed'; position: ChainPosition; predecessor: ChainPosition }
  | { outcome: 'fenced'; fenced: Fenced }
> {
  const newest = await new Chain(deps, request).newest(signalOf(request));
  const before = newest && (await beforeOwnClaims(deps, request, newest));
  let predecessor = newest?.position ?? CHAIN_START;
  let header = newest?.header;
  for (;;) {
    const fenced = header === undefined ? undefined : fencedBy(header, request.writerEpoch);
    if (fenced !== undefined) return { outcome: 'fenced', fenced };
    const committed = await append(deps, request, predecessor, {
      kind: 'Claim',
      writerEpoch: request.writerEpoch,
      failover: undefined,
    });
    if (committed.outcome === 'committed')
      return {
        outcome: 'claimed',
        position: committed.position,
        predecessor: predecessor === newest?.position && before ? before : predecessor,
      };
    predecessor = committed.by.position;
    header = committed.by.header;
  }
}

/** What an earlier try, whose answer was lost, was put behind; undefined when that can't be seen. */
async function beforeOwnClaims(
  deps: ClaimDeps,
  request: ClaimRequest,
  newest: SegmentEnd,
): Promise<ChainPosition | undefined> {
  const { machineId } = request;
  let { position, header } = newest;
  while (header.kind === 'Claim' && header.writerEpoch === request.writerEpoch) {
    const seq = position.seq - 1;
    const earlier =
      seq < 0
        ? undefined
        : await readSegmentEnd(deps.objects, { machineId, seq, ...signalOf(request) });
    if (earlier?.position.digest !== header.previousDigest) return undefined;
    ({ position, header } = earlier);
  }
  return position;
}

/**
 * Closes a journal for a failover: its writer finds out at its next segment and stops. Sealing again answers the seal that is there, which
 * may be another failover's: compare. Throws ChainError (ChainEmpty), StoreError.
 */
export async function sealJournal(
  deps: ClaimDeps,
  request: {
    machineId: string;
    dataKey: Uint8Array;
    failover: string;
    side: SegmentSide;
    signal?: AbortSignal;
  },
): Promise<{ position: ChainPosition; failover: string }> {
  let newest = await new Chain(deps, request).newest(signalOf(request));
  if (newest === undefined)
    throw new ChainError(
      'ChainEmpty',
      `Machine ${request.machineId} has no journal in the vault: there is nothing to seal or to recover. Wait for its initial replication.`,
    );
  for (;;) {
    const { header, position } = newest;
    if (header.kind === 'Seal' && header.failover !== undefined)
      return { position, failover: header.failover };
    const committed = await append(deps, request, position, {
      kind: 'Seal',
      writerEpoch: header.writerEpoch,
      failover: request.failover,
    });
    if (committed.outcome === 'committed')
      return { position: committed.position, failover: request.failover };
    newest = committed.by;
  }
}

/** Why a writer of this epoch may not go on behind this segment; undefined when it may, by a claim. */
export function fencedBy(header: SegmentHeader, writerEpoch: number): Fenced | undefined {
  if (header.writerEpoch > writerEpoch) return { by: 'HigherEpoch' };
  if (header.kind === 'Seal' && header.writerEpoch >= writerEpoch)
    return { by: 'Seal', failover: header.failover ?? '' };
  return undefined;
}

async function append(
  deps: ClaimDeps,
  machine: { machineId: string; dataKey: Uint8Array; side: SegmentSide; signal?: AbortSignal },
  predecessor: ChainPosition,
  what: Pick<SegmentHeader, 'kind' | 'writerEpoch' | 'failover'>,
) {
  const header: SegmentHeader = {
    ...what,
    side: machine.side,
    machineId: machine.machineId,
    seq: predecessor.seq + 1,
    firstLsn: predecessor.lsn + 1n,
    lastLsn: predecessor.lsn,
    previousDigest: predecessor.digest,
    salt: deps.random.bytes(32),
    plainLength: 0,
    chunkSize: SEGMENT_CHUNK_SIZE,
    sealedAtMs: Math.floor(deps.clock.now()),
    barriers: [],
  };
  const { bytes, digest } = await encodeSegment({
    header,
    dataKey: machine.dataKey,
    codec: deps.codec,
  });
  const { machineId, seq } = header;
  const committed = await commitSegment(
    deps.objects,
    { machineId, seq, body: bytes, digest },
    signalOf(machine),
  );
  if (committed.outcome === 'taken') return committed;
  const position: ChainPosition = {
    seq: header.seq,
    digest,
    lsn: header.lastLsn,
    writerEpoch: header.writerEpoch,
    sealed: header.kind === 'Seal',
  };
  return { outcome: 'committed', position } as const;
}

function signalOf(options: { signal?: AbortSignal }): { signal?: AbortSignal } {
  return options.signal === undefined ? {} : { signal: options.signal };
}
