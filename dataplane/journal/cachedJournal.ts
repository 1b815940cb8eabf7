/** What the cache holds of a machine's journal: whether it can be believed, and going on with it where it was, without the vault. */
import { errorMessage } from '../../platform/errors.ts';
import type { Clock } from '../../platform/ports.ts';
import { LogDamage, readEntries } from './cacheLog.ts';
import { mergeDisks } from './journalDisks.ts';
import { openTable } from './journalTables.ts';
import type { LeafTable } from './leafTable.ts';
import { LocalJournal, type LocalJournalDeps } from './localJournal.ts';
import type { LogRun } from './logRun.ts';
import { maxLsn, minLsn } from './lsn.ts';
import type { OpenMachineOptions } from './machineJournal.ts';
import {
  isLost,
  type MachineState,
  machineDirectory,
  readMachineState,
  writeMachineState,
} from './machineState.ts';
import { decodeRecord, type JournalRecord, RecordError, RecordKind } from './record.ts';
import { listSealed, readSealed, removeUnfinished, type SealedSegment } from './sealedFile.ts';

const READ_AGAIN_FIRST_MS = 500;
/** What can't be read is tried again, with twice the pause each time up to this one, before it is taken for lost. */
const READ_AGAIN_MAX_MS = 2_000;

export interface CachedJournalDeps extends LocalJournalDeps {
  segmentBytes: number;
  sealAfterMs: number;
  sealEarlyBytes: number;
  /** What the log holds of a machine, in log order, whatever its incarnation. */
  runsOf(machineId: string): readonly LogRun[];
  /** Where recovery found acknowledged entries lost. */
  holes: readonly { file: number; offset: number }[];
}

export interface CachedJournal {
  /** Ready or not; undefined when there is none. */
  state: MachineState | undefined;
  /** Why it can't be believed. */
  damage: string | undefined;
}

export async function examineCached(
  deps: CachedJournalDeps,
  machineId: string,
): Promise<CachedJournal> {
  const state = await readAgain(deps.clock, () => readMachineState(deps.disk, machineId)).catch(
    (error: unknown) => {
      if (isLost(error)) return 'unreadable' as const;
      throw error;
    },
  );
  if (state === 'missing') return { state: undefined, damage: undefined };
  if (state === 'unreadable') return { state: undefined, damage: 'its state file is damaged' };
  // A process killed while it replaced the state, or sealed a segment, may have left names that a power failure takes back.
  await deps.disk.syncDirectory(machineDirectory(machineId));
  if (state.distrusted !== undefined) return { state, damage: state.distrusted };
  // Nothing was accepted yet; the rebuilding begins again.
  if (state.phase === 'Rebuilding') return { state, damage: undefined };
  return { state, damage: (await tablesMissing(deps, state)) ?? logGap(deps, state) };
}

/** A table's file is made right after the state that names it, which then demands a resync. */
async function tablesMissing(
  deps: CachedJournalDeps,
  state: MachineState,
): Promise<string | undefined> {
  if (state.table.resync.required) return undefined;
  const files = new Set(await deps.disk.list(machineDirectory(state.machineId)));
  const missing = state.disks.find(
    ({ index, sizeBytes }) => sizeBytes > 0 && !files.has(`disk-${index}.leaves`),
  );
  return missing && `the leaf table of disk ${missing.name} is missing`;
}

/** The log must give back every record that the state builds on, and all that came after. */
function logGap(deps: CachedJournalDeps, state: MachineState): string | undefined {
  const runs = runsOfIncarnation(deps, state);
  const { uploaded, table } = state;
  const settled = minLsn(uploaded.lsn, table.lsn);
  const promised = maxLsn(uploaded.lsn, table.lsn);
  let covered = settled;
  for (const run of runs) {
    if (run.lastLsn <= settled) continue;
    if (run.firstLsn > covered + 1n)
      return `the log lacks the records from LSN ${covered + 1n} to ${run.firstLsn - 1n}`;
    covered = run.lastLsn;
  }
  if (covered < promised) return `the log ends at LSN ${covered}, before ${promised}`;
  const hole = deps.holes.find(
    ({ file, offset }) =>
      file >= state.sinceFile &&
      !runs.some(
        ({ place }) => place.file > file || (place.file === file && place.offset > offset),
      ),
  );
  return (
    hole && `log file ${hole.file} is damaged, and nothing after it shows that no record was lost`
  );
}

function runsOfIncarnation(deps: CachedJournalDeps, state: MachineState): LogRun[] {
  return deps.runsOf(state.machineId).filter((run) => run.incarnation === state.incarnation);
}

/** Undefined when there is nothing to go on with; damage that shows only now is in the state from then on. */
export async function resumeCached(
  deps: CachedJournalDeps,
  options: OpenMachineOptions,
  state: MachineState,
): Promise<LocalJournal | { damage: string } | undefined> {
  if (state.phase !== 'Ready') return undefined;
  try {
    return await readAgain(deps.clock, () => resumeOnce(deps, options, state));
  } catch (error) {
    const isDamage = error instanceof LogDamage || error instanceof RecordError || isLost(error);
    if (!isDamage) throw error;
    const damage = errorMessage(error);
    await writeMachineState(deps.disk, { ...state, distrusted: damage });
    return { damage };
  }
}

async function resumeOnce(
  deps: CachedJournalDeps,
  options: OpenMachineOptions,
  state: MachineState,
): Promise<LocalJournal> {
  const { machineId } = state;
  const tables = new Map<number, LeafTable>();
  try {
    const waiting = await waitingSegment(deps, state);
    for (const { index, sizeBytes } of state.disks)
      if (sizeBytes > 0)
        tables.set(index, await openTable(deps, { machineId, index, sizeBytes, fresh: false }));
    const journal = new LocalJournal(deps, { ...deps, state, dataKey: options.dataKey, tables });
    if (waiting !== undefined) journal.expectSealed(waiting.header.lastLsn);
    await replayLog(deps, state, journal);
    journal.start(waiting);
    const merged = mergeDisks(
      new Map(state.disks.map((disk) => [disk.index, disk])),
      options.disks,
    );
    if (merged.reason !== undefined || merged.disks.size !== state.disks.length)
      await journal.setDisks(options.disks);
    return journal;
  } catch (error) {
    for (const table of tables.values()) await table.close();
    throw error;
  }
}

async function replayLog(
  deps: CachedJournalDeps,
  state: MachineState,
  journal: LocalJournal,
): Promise<void> {
  const settled = journal.settledLsn();
  for (const run of runsOfIncarnation(deps, state)) {
    if (run.lastLsn <= settled) continue;
    for await (const { header, place, payload } of readEntries(deps.disk, run.place, run)) {
      const { machineId, incarnation, firstLsn, count, payloadLength } = header;
      const records = decodeAll(payload);
      const only = records[0];
      const barrier =
        only?.kind === RecordKind.Barrier
          ? { lsn: firstLsn, timeMs: only.barrier.timeMs, consistency: only.barrier.consistency }
          : undefined;
      const entry = { machineId, incarnation, firstLsn, count, payloadLength, place, barrier };
      await journal.replay(entry, records);
    }
  }
}

function decodeAll(bytes: Uint8Array): JournalRecord[] {
  const records: JournalRecord[] = [];
  for (let offset = 0; offset < bytes.length; ) {
    const { record, next } = decodeRecord(bytes, offset);
    records.push(record);
    offset = next;
  }
  return records;
}

/** The sealed segment that continues what is uploaded; others are of no use any more and go. Throws LogDamage for a damaged one. */
async function waitingSegment(
  deps: CachedJournalDeps,
  state: MachineState,
): Promise<SealedSegment | undefined> {
  const { machineId, uploaded, writerEpoch } = state;
  let waiting: SealedSegment | undefined;
  await removeUnfinished(deps.disk, machineId);
  for (const { name, seq, digest } of await listSealed(deps.disk, machineId)) {
    if (seq === uploaded.seq + 1 && waiting === undefined) {
      const sealed = await readSealed(deps.disk, { machineId, name, digest });
      // It may be in the vault already, in its true bytes; sealing other bytes for the same number could fork the journal.
      if (sealed === undefined) throw new LogDamage(`the sealed segment ${name} is damaged`);
      const { header } = sealed;
      const fits = header.previousDigest === uploaded.digest && header.writerEpoch === writerEpoch;
      if (fits) {
        waiting = sealed;
        continue;
      }
    }
    await deps.disk.remove(`${machineDirectory(machineId)}/${name}`);
  }
  return waiting;
}

/** A path that fails over, or a bus that is reset, fails for a moment; one error must not cost what was acknowledged. */
async function readAgain<T>(clock: Clock, read: () => Promise<T>): Promise<T> {
  for (let pauseMs = READ_AGAIN_FIRST_MS; ; pauseMs *= 2)
    try {
      return await read();
    } catch (error) {
      if (!isLost(error) || pauseMs > READ_AGAIN_MAX_MS) throw error;
      await clock.sleep(pauseMs);
    }
}
