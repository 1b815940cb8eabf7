/** A machine's whole journal, replayed from its beginning: what an applier that starts today would get (invariants 1, 4, 5, 6). */
import { CHAIN_START, Chain, type ChainDeps } from '../../dataplane/journal/chain.ts';
import { decodeRecord, RecordKind } from '../../dataplane/journal/record.ts';
import { errorMessage } from '../../platform/errors.ts';
import { applyRecord } from '../fakes/records.ts';
import { compareImages } from './images.ts';
import type { Machine } from './machine.ts';
import type { Candidate } from './oracle.ts';

export interface JournalFinding {
  invariant: string;
  detail: string;
}

export async function journalBreaches(
  deps: ChainDeps,
  of: {
    machine: Machine;
    dataKey: Uint8Array;
    candidates: (lsn: bigint) => readonly Candidate[];
    /** LSNs of all points that were ever made. */
    points: readonly bigint[];
  },
): Promise<JournalFinding[]> {
  const { machine, dataKey, candidates } = of;
  const found: JournalFinding[] = [];
  const disks = new Map(
    machine.disks.map((disk) => [disk.index, new Uint8Array(disk.sizeBytes)] as const),
  );
  const points = new Set(of.points);
  let resyncing = true;
  const atBarrier = (lsn: bigint) => {
    if (resyncing) {
      if (points.has(lsn))
        found.push({ invariant: '6', detail: `a point at LSN ${lsn}, inside a resync` });
      return;
    }
    const frozen = candidates(lsn).flatMap((candidate) => candidate.frozen.images);
    const matches = frozen.some((images) =>
      [...disks].every(([index, body]) => compareImages(body, images[index] ?? []) === undefined),
    );
    if (!matches)
      found.push({
        invariant: '4',
        detail: `${machine.name}: the journal replayed to LSN ${lsn} is not what the source was`,
      });
  };
  try {
    const chain = new Chain(deps, { machineId: machine.machineId, dataKey });
    for await (const segment of chain.segments(CHAIN_START))
      for await (const { firstLsn, records } of segment.batches()) {
        let lsn = firstLsn;
        for (let offset = 0; offset < records.length; lsn += 1n) {
          const { record, next } = decodeRecord(records, offset);
          offset = next;
          if (record.kind === RecordKind.ResyncBegin) resyncing = true;
          else if (record.kind === RecordKind.ResyncEnd) resyncing = false;
          else if (record.kind === RecordKind.Barrier) atBarrier(lsn);
          else applyRecord(record, disks);
        }
      }
  } catch (error) {
    found.push({
      invariant: '2',
      detail: `${machine.name}: the journal can not be read: ${errorMessage(error)}`,
    });
  }
  return found.slice(0, 3);
}
