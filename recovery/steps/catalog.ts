/** What a failover writes into the machine's catalog entry: that it holds the machine, which side is active, what it asks of the source. */
import { Catalog } from '../../vault/catalog.ts';
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
  return await change(deps, document, (catalog) => {
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
  return await change(deps, document, (catalog) => ({
    ...catalog,
    finalSync: { failover: document.name, powerOff: document.request.powerOffSource },
  }));
}

/** Hands the disks to Azure's side: no process server is told to write the journal any more. Safe to call again. */
export async function takeSide(
  deps: CatalogDeps,
  document: FailoverDocument,
): Promise<CatalogDocument> {
  return await change(deps, document, (catalog) => ({ ...catalog, activeSide: 'Azure' }));
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
  edit: (catalog: CatalogDocument) => CatalogDocument,
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
