/** What a failover writes into the machine's catalog entry: that it holds the machine, which side is active, what it asks of the source. */
import { FarshoreError } from '../../platform/errors.ts';
import { Catalog } from '../../vault/catalog.ts';
import type { CatalogDocument } from '../../vault/documents/catalog.ts';
import type { FailoverDocument } from '../../vault/documents/failover.ts';
import { LedgerEntry } from '../../vault/ledger.ts';
import type { RecoveryDeps } from '../context.ts';
import { FailoverFatal } from '../errors.ts';
import { nextOf, releases } from '../itinerary.ts';

type CatalogDeps = Pick<RecoveryDeps, 'objects'>;

/**
 * Takes the machine for this failover; fatal when another one has it that has not ended. One that has ended holds nothing: an
 * operator that was stopped for long and came back may have claimed the machine once more for it. Safe to call again.
 */
export async function claimMachine(
  deps: CatalogDeps,
  document: FailoverDocument,
): Promise<CatalogDocument> {
  return await change(deps, document, async (catalog) => {
    const holder = await holderOf(deps, catalog);
    if (holder !== undefined && holder !== document.name)
      throw new FailoverFatal(
        'MachineBusy',
        `Machine ${catalog.name} is in failover ${holder}. Finish that one (commit it, or clean a test up) and create a new Failover.`,
      );
    return { ...catalog, activeFailover: document.name };
  });
}

/** Asks the machine's process server for the last barrier of a planned failover. */
export async function requestFinalSync(
  deps: CatalogDeps,
  document: FailoverDocument,
): Promise<CatalogDocument> {
  return await change(deps, document, (catalog) => ({
    ...requireHeld(catalog, document),
    finalSync: { failover: document.name, powerOff: document.request.powerOffSource },
  }));
}

/** Hands the disks to Azure's side: no process server is told to write the journal any more. Safe to call again. */
export async function takeSide(
  deps: CatalogDeps,
  document: FailoverDocument,
): Promise<CatalogDocument> {
  return await change(deps, document, (catalog) => ({
    ...requireHeld(catalog, document),
    activeSide: 'Azure',
  }));
}

/** Whoever was too slow must not take a machine from its source that was let go meanwhile: nobody would give it back. */
function requireHeld(catalog: CatalogDocument, document: FailoverDocument): CatalogDocument {
  if (catalog.activeFailover === document.name) return catalog;
  throw new FarshoreError(
    'MachineNotHeld',
    `Machine ${catalog.name} is not held by failover ${document.name} any more (${catalog.activeFailover === undefined ? 'nothing holds it' : `${catalog.activeFailover} does`}). Nothing was changed.`,
  );
}

/** The failover that has the machine now, if any. */
export async function holderOf(
  deps: CatalogDeps,
  catalog: CatalogDocument,
): Promise<string | undefined> {
  const { activeFailover } = catalog;
  return activeFailover === undefined || (await hasEnded(deps, activeFailover))
    ? undefined
    : activeFailover;
}

async function hasEnded(deps: CatalogDeps, failover: string): Promise<boolean> {
  const entry = await LedgerEntry.read(deps.objects, failover);
  return entry !== undefined && nextOf(entry.document).kind === 'rest' && releases(entry.document);
}

/** Lets the machine go; `backToSource` after a failure that was undone, so that its replication goes on under a new epoch. */
export async function releaseMachine(
  deps: CatalogDeps,
  document: FailoverDocument,
  options: { backToSource: boolean },
): Promise<void> {
  await change(deps, document, (catalog) => {
    if (catalog.activeFailover !== document.name) return catalog;
    const { activeFailover: _, finalSync: __, ...released } = catalog;
    const sealed = document.steps.some((step) => step.name === 'SealJournal');
    if (!options.backToSource || !sealed || catalog.activeSide === 'Source') return released;
    return { ...released, activeSide: 'Source', writerEpoch: catalog.writerEpoch + 1 };
  });
}

async function change(
  deps: CatalogDeps,
  document: FailoverDocument,
  edit: (catalog: CatalogDocument) => CatalogDocument | Promise<CatalogDocument>,
): Promise<CatalogDocument> {
  const { machineId, machineName } = document.request;
  const updated = await new Catalog({ store: deps.objects }).update(machineId, edit);
  if (updated === undefined)
    throw new FailoverFatal(
      'MachineUnknown',
      `Machine ${machineName} (${machineId}) is not in the vault's catalog: it was never protected into this vault.`,
    );
  return updated.document;
}
