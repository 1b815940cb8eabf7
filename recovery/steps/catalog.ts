/** What a failover writes into the machine's catalog entry: that it holds the machine, which side is active, what it asks of the source. */
import { updateCatalog } from '../../vault/catalog.ts';
import type { CatalogDocument } from '../../vault/documents.ts';
import type { FailoverDocument } from '../../vault/ledger.ts';
import type { RecoveryDeps } from '../context.ts';
import { FailoverFatal } from '../errors.ts';

type CatalogDeps = Pick<RecoveryDeps, 'objects'>;

/** Takes the machine for this failover; fatal when another one has it. Safe to call again. */
export async function claimMachine(
  deps: CatalogDeps,
  document: FailoverDocument,
): Promise<CatalogDocument> {
  return await updateCatalog(deps.objects, document.request.machineId, (catalog) => {
    const holder = catalog.activeFailover;
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
  return await updateCatalog(deps.objects, document.request.machineId, (catalog) => ({
    ...catalog,
    finalSync: { failover: document.name, powerOff: document.request.powerOffSource },
  }));
}

/**
 * Hands the disks to Azure's side: from here on no process server may write the journal. Returns the epoch to seal it with, the same
 * one when called again.
 */
export async function takeSide(
  deps: CatalogDeps,
  document: FailoverDocument,
): Promise<CatalogDocument> {
  return await updateCatalog(deps.objects, document.request.machineId, (catalog) =>
    catalog.activeSide === 'Azure'
      ? catalog
      : { ...catalog, activeSide: 'Azure', writerEpoch: catalog.writerEpoch + 1 },
  );
}

/** Lets the machine go; `backToSource` after a failure that was undone, so that its replication goes on under a new epoch. */
export async function releaseMachine(
  deps: CatalogDeps,
  document: FailoverDocument,
  options: { backToSource: boolean },
): Promise<void> {
  await updateCatalog(deps.objects, document.request.machineId, (catalog) => {
    if (catalog.activeFailover !== document.name) return catalog;
    const { activeFailover: _, finalSync: __, ...released } = catalog;
    const sealed = document.steps.some((step) => step.name === 'SealJournal');
    if (!options.backToSource || !sealed || catalog.activeSide === 'Source') return released;
    return { ...released, activeSide: 'Source', writerEpoch: catalog.writerEpoch + 1 };
  });
}
