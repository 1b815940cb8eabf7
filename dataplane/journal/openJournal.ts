/**
 * Opening a machine's journal. What the cache holds of it is believed when state, log and tables agree; then the journal goes on where it
 * was, without the vault. Everything else (nothing here, another writer epoch, damage) begins with a claim in the vault, after which no
 * segment sealed earlier can join the chain, and takes the leaf tables from the vault.
 */
import { errorMessage } from '../../platform/errors.ts';
import type { Clock } from '../../platform/ports.ts';
import { isStoreError } from '../../platform/storeErrors.ts';
import { LogDamage, readEntries } from './cacheLog.ts';
import type { ChainPosition } from './chain.ts';
import { claimJournal } from './claim.ts';
import { mergeDisks, tablePath } from './journalDisks.ts';
import { LeafTable } from './leafTable.ts';
import { LocalJournal, type LocalJournalDeps } from './localJournal.ts';
import type { LogRun } from './logRun.ts';
import { maxLsn, minLsn } from './lsn.ts';
import { fencedError, type JournalDisk, type OpenMachineOptions } from './machineJournal.ts';
import {
  isLost,
  MACHINES_DIRECTORY,
  type MachineState,
  machineDirectory,
  readMachineState,
  writeMachineState,
} from './machineState.ts';
import type { RebuildDeps } from './rebuild.ts';
import { rebuildTables } from './rebuild.ts';
import { decodeRecord, type JournalRecord, RecordError, RecordKind } from './record.ts';
import { listSealed, readSealed, removeUnfinished, type SealedSegment } from './sealedFile.ts';

const RETRY_FIRST_MS = 500;
const RETRY_MAX_MS = 30_000;
/** What can't be read is tried again, with twice the pause each time up to this one, before it is taken for lost. */
const READ_AGAIN_MAX_MS = 2_000;

export interface OpenJournalDeps extends LocalJournalDeps, RebuildDeps {
  segmentBytes: number;
  sealAfterMs: number;
  sealEarlyBytes: number;
  /** What the log holds of a machine, in log order, whatever its incarnation. */
  runsOf(machineId: string): readonly LogRun[];
  /** Where recovery found acknowledged entries lost. */
  holes: readonly { file: number; offset: number }[];
}

/** Throws JournalError (JournalFenced), SegmentError, ChainError; waits for ever for a vault that does not answer. */
export async function openJournal(
  deps: OpenJournalDeps,
  options: OpenMachineOptions,
): Promise<LocalJournal> {
  const local = await examine(deps, options.machineId);
  if (local.state !== undefined && local.state.writerEpoch > options.writerEpoch)
    throw fencedError(options.machineId, { by: 'HigherEpoch' });
  if (local.damage === undefined && local.state?.writerEpoch === options.writerEpoch) {
    const resumed = await resume(deps, options, local.state);
    if (resumed instanceof LocalJournal) return resumed;
    local.damage = resumed?.damage;
  }
  if (local.damage !== undefined)
    deps.logger.error(
      { machineId: options.machineId, cause: local.damage },
      'what the cache holds of this machine is not whole: it begins again from the vault, with a resync',
    );
  return await untilTheVaultAnswers(deps, options, () => takeOver(deps, options, local));
}

interface Local {
  /** Ready or not; undefined when there is none. */
  state: MachineState | undefined;
  /** Why it can't be believed. */
  damage: string | undefined;
}

async function examine(deps: OpenJournalDeps, machineId: string): Promise<Local> {
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
  deps: OpenJournalDeps,
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
function logGap(deps: OpenJournalDeps, state: MachineState): string | undefined {
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

function runsOfIncarnation(deps: OpenJournalDeps, state: MachineState): LogRun[] {
  return deps.runsOf(state.machineId).filter((run) => run.incarnation === state.incarnation);
}

// ---------------------------------------------------------------------------------------------------------------- going on

/** Undefined when there is nothing to go on with; damage that shows only now is in the state from then on. */
async function resume(
  deps: OpenJournalDeps,
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
  deps: OpenJournalDeps,
  options: OpenMachineOptions,
  state: MachineState,
): Promise<LocalJournal> {
  const tables = new Map<number, LeafTable>();
  try {
    const waiting = await waitingSegment(deps, state);
    for (const { index, sizeBytes } of state.disks)
      if (sizeBytes > 0)
        tables.set(index, await openTable(deps, state, { index, sizeBytes }, false));
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

/** A path that fails over, or a bus that is reset, fails for a moment; one error must not cost what was acknowledged. */
async function readAgain<T>(clock: Clock, read: () => Promise<T>): Promise<T> {
  for (let pauseMs = RETRY_FIRST_MS; ; pauseMs *= 2)
    try {
      return await read();
    } catch (error) {
      if (!isLost(error) || pauseMs > READ_AGAIN_MAX_MS) throw error;
      await clock.sleep(pauseMs);
    }
}

async function replayLog(
  deps: OpenJournalDeps,
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
  deps: OpenJournalDeps,
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

async function openTable(
  deps: OpenJournalDeps,
  state: { machineId: string },
  disk: { index: number; sizeBytes: number },
  fresh: boolean,
): Promise<LeafTable> {
  const path = tablePath(state.machineId, disk.index);
  const { disk: files, hashPages: pages } = deps;
  return await LeafTable.open({ disk: files, path, sizeBytes: disk.sizeBytes, fresh, pages });
}

// ------------------------------------------------------------------------------------------------------------- taking over

async function takeOver(
  deps: OpenJournalDeps,
  options: OpenMachineOptions,
  local: Local,
): Promise<LocalJournal> {
  const { machineId, dataKey, writerEpoch, signal } = options;
  const claim = await claimJournal(deps, {
    machineId,
    dataKey,
    writerEpoch,
    side: 'Source',
    ...(signal === undefined ? {} : { signal }),
  });
  if (claim.outcome === 'fenced') throw fencedError(machineId, claim.fenced);
  const { position, predecessor } = claim;
  deps.logger.info({ machineId, writerEpoch, seq: position.seq }, 'claimed the journal');
  // Nobody wrote since we did: what is journaled here still continues the chain.
  const intact = local.damage === undefined ? local.state : undefined;
  if (intact?.phase === 'Ready' && intact.uploaded.digest === predecessor.digest) {
    const { seq, digest } = position;
    const state = { ...intact, writerEpoch, uploaded: { ...intact.uploaded, seq, digest } };
    await writeMachineState(deps.disk, state);
    const resumed = await resume(deps, options, state);
    if (resumed instanceof LocalJournal) return resumed;
    local.damage = resumed?.damage;
  }
  return await beginAgain(deps, options, position, local.damage);
}

/** Everything local goes; a crash on the way leaves `Rebuilding`, and the next open begins again. */
async function beginAgain(
  deps: OpenJournalDeps,
  options: OpenMachineOptions,
  claimed: ChainPosition,
  damage: string | undefined,
): Promise<LocalJournal> {
  const { machineId } = options;
  const { seq, digest, lsn } = claimed;
  const initial: MachineState = {
    version: 1,
    machineId,
    incarnation: new DataView(deps.random.bytes(8).buffer).getBigUint64(0) >> 1n,
    sinceFile: deps.log.activeNumber,
    writerEpoch: options.writerEpoch,
    phase: 'Rebuilding',
    uploaded: { seq, digest, lsn },
    table: { lsn, resync: { required: true, reason: 'VaultGap' } },
    disks: [],
    ...(damage === undefined ? {} : { distrusted: damage }),
  };
  await deps.disk.makeDirectory(machineDirectory(machineId));
  await deps.disk.syncDirectory('.');
  await deps.disk.syncDirectory(MACHINES_DIRECTORY);
  await writeMachineState(deps.disk, initial);
  await removeOthers(deps, machineId);
  const tables = new Map<number, LeafTable>();
  try {
    const state = await rebuildState(deps, options, { initial, claimed, tables });
    const journal = new LocalJournal(deps, { ...deps, state, dataKey: options.dataKey, tables });
    journal.start(undefined);
    return journal;
  } catch (error) {
    for (const table of tables.values()) await table.close();
    throw error;
  }
}

async function rebuildState(
  deps: OpenJournalDeps,
  options: OpenMachineOptions,
  from: { initial: MachineState; claimed: ChainPosition; tables: Map<number, LeafTable> },
): Promise<MachineState> {
  const { initial, claimed, tables } = from;
  const { machineId, dataKey, disks, signal } = options;
  const rebuilt = await rebuildTables(
    deps,
    {
      machineId,
      dataKey,
      disks,
      signal,
      openTable: (disk) => openTable(deps, initial, disk, true),
    },
    claimed,
    tables,
  );
  // Somebody claimed behind us while we read.
  if (rebuilt.position.digest !== claimed.digest)
    throw fencedError(machineId, { by: 'HigherEpoch' });
  for (const table of tables.values()) await table.sync();
  const { barrier, appBarrier } = rebuilt;
  const damaged = initial.distrusted !== undefined;
  const state: MachineState = {
    ...initial,
    phase: 'Ready',
    distrusted: undefined,
    uploaded: {
      ...initial.uploaded,
      ...(barrier === undefined ? {} : { barrier }),
      ...(appBarrier === undefined ? {} : { appBarrier }),
    },
    table: {
      lsn: claimed.lsn,
      resync: damaged ? { required: true, reason: 'VaultGap' } : rebuilt.resync,
      ...(barrier === undefined ? {} : { lastBarrier: barrier }),
    },
    disks: [...rebuilt.disks.values()].map(plainDisk),
  };
  await writeMachineState(deps.disk, state);
  return state;
}

function plainDisk({ index, name, sizeBytes }: JournalDisk): JournalDisk {
  return { index, name, sizeBytes };
}

async function removeOthers(deps: OpenJournalDeps, machineId: string): Promise<void> {
  const directory = machineDirectory(machineId);
  for (const name of await deps.disk.list(directory))
    if (name !== 'state.json') await deps.disk.remove(`${directory}/${name}`);
  await deps.disk.syncDirectory(directory);
}

async function untilTheVaultAnswers<T>(
  deps: OpenJournalDeps,
  options: OpenMachineOptions,
  act: () => Promise<T>,
): Promise<T> {
  for (let attempt = 0; ; attempt++) {
    try {
      options.signal?.throwIfAborted();
      return await act();
    } catch (error) {
      options.signal?.throwIfAborted();
      if (!isStoreError(error)) throw error;
      options.onWaiting?.(error);
      const jitter = 0.5 + (deps.random.bytes(1)[0] as number) / 512;
      const delay = Math.min(RETRY_MAX_MS, RETRY_FIRST_MS * 2 ** Math.min(attempt, 10)) * jitter;
      await deps.clock.sleep(delay, options.signal);
    }
  }
}
