/**
 * Opening a machine's journal. What the cache holds of it is believed when state, log and tables agree; then the journal goes on where it
 * was, without the vault. Everything else (nothing here, another writer epoch, damage) begins with a claim in the vault, after which no
 * segment sealed earlier can join the chain, and takes the leaf tables from the vault.
 */
import { isStoreError } from '../../platform/storeErrors.ts';
import {
  type CachedJournal,
  type CachedJournalDeps,
  examineCached,
  resumeCached,
} from './cachedJournal.ts';
import type { ChainPosition } from './chain.ts';
import { claimJournal } from './claim.ts';
import { openTable } from './journalTables.ts';
import type { LeafTable } from './leafTable.ts';
import { LocalJournal } from './localJournal.ts';
import { fencedError, type JournalDisk, type OpenMachineOptions } from './machineJournal.ts';
import {
  MACHINES_DIRECTORY,
  type MachineState,
  machineDirectory,
  writeMachineState,
} from './machineState.ts';
import { type RebuildDeps, rebuildTables } from './rebuild.ts';

const RETRY_FIRST_MS = 500;
const RETRY_MAX_MS = 30_000;

export interface OpenJournalDeps extends CachedJournalDeps, RebuildDeps {}

/** Throws JournalError (JournalFenced), SegmentError, ChainError; waits for ever for a vault that does not answer. */
export async function openJournal(
  deps: OpenJournalDeps,
  options: OpenMachineOptions,
): Promise<LocalJournal> {
  const local = await examineCached(deps, options.machineId);
  if (local.state !== undefined && local.state.writerEpoch > options.writerEpoch)
    throw fencedError(options.machineId, { by: 'HigherEpoch' });
  if (local.damage === undefined && local.state?.writerEpoch === options.writerEpoch) {
    const resumed = await resumeCached(deps, options, local.state);
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

async function takeOver(
  deps: OpenJournalDeps,
  options: OpenMachineOptions,
  local: CachedJournal,
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
    const resumed = await resumeCached(deps, options, state);
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
      openTable: (disk) => openTable(deps, { machineId, ...disk, fresh: true }),
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
