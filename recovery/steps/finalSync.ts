import { Catalog } from '../../vault/catalog.ts';
import { readDocument } from '../../vault/documentStore.ts';
import type { CatalogDocument } from '../../vault/documents/catalog.ts';
import type { FailoverDocument } from '../../vault/documents/failover.ts';
import type { MachineStatus } from '../../vault/documents/machineStatus.ts';
import { processServerStatusSchema } from '../../vault/documents/processServerStatus.ts';
import { vaultLayout } from '../../vault/layout.ts';
import type { RecoveryDeps, StepRun } from '../context.ts';
import { FailoverFatal } from '../errors.ts';
import { requestFinalSync } from './catalog.ts';

/** Past this the source is let go again: a machine must not stay frozen because somebody left a planned failover waiting. */
const LONGEST_MS = 30 * 60_000;

/** Planned: the source freezes, its last barrier reaches the vault, and it goes off while frozen. Nothing is lost. */
export const finalSync: StepRun = async ({ deps, entry, signal }) => {
  const { document } = entry;
  const catalog = await requestFinalSync(deps, document);
  let { processServer } = catalog;
  if (processServer === undefined)
    throw new FailoverFatal(
      'SourceUnreachable',
      `Machine ${catalog.name} has no process server that could ask it for its last changes. If the site is lost, create an Unplanned Failover.`,
    );
  const since =
    document.steps.find((step) => step.name === 'FinalSync')?.startedAt ?? deps.clock.now();
  let firstHeardMs: number | undefined;
  let firstUnprovenMs: number | undefined;
  for (;;) {
    const { heartbeatMs, machine } = await reportOf(deps, { ...catalog, processServer });
    const final = machine?.finalBarrier;
    const arrived = final?.failover === document.name;
    const isUnproven = machine?.errors.some(({ code }) => code === 'HeldUnproven') ?? false;
    const owner = await ownerOf(deps, catalog);
    // Another one has the machine since: what the former one said last is no news.
    if (owner !== undefined && owner !== processServer) {
      processServer = owner;
      firstHeardMs = undefined;
      firstUnprovenMs = undefined;
      continue;
    }
    if (!isUnproven) firstUnprovenMs = undefined;
    else firstUnprovenMs ??= heartbeatMs;
    // Nothing would come any more, and production waits.
    if (isUnproven && heartbeatMs !== firstUnprovenMs)
      throw new FailoverFatal(
        'FinalSyncUnproven',
        `Machine ${catalog.name} is frozen behind its last barrier, but its tracking was lost since, so nobody can say that nothing was written behind that barrier. It goes on as before and is resynced; then create a new Planned Failover.`,
      );
    if (!arrived) firstHeardMs = undefined;
    else if (final.poweredOff || !document.request.powerOffSource) {
      firstHeardMs ??= heartbeatMs;
      // A frozen machine can be thawed by anybody: what is believed must be news, not the last words of a dead process server.
      if (final.poweredOff || heartbeatMs !== firstHeardMs) {
        await entry.update({ finalBarrier: { lsn: final.lsn, poweredOff: final.poweredOff } });
        const state = final.poweredOff ? 'powered off' : 'frozen';
        return `The source is ${state}; its last barrier, LSN ${final.lsn}, is in the vault.`;
      }
    }
    if (deps.clock.now() - since > LONGEST_MS)
      throw new FailoverFatal(
        'FinalSyncTimedOut',
        `Machine ${catalog.name} did not deliver its last changes within ${LONGEST_MS / 60_000} minutes (process server ${processServer}: ${machine?.agent.connected ? 'agent connected' : 'agent not connected'}). ${document.request.powerOffSource ? 'It goes on as before, unless it was turned off and nobody heard of it: then start it again.' : 'It goes on as before.'} If the site is lost, create an Unplanned Failover.`,
      );
    await deps.clock.sleep(deps.pollMs, signal);
  }
};

/** Who says when that the source still stands behind its last barrier; undefined: nobody does. Asked before the journal is sealed. */
export async function standstill(
  deps: Pick<RecoveryDeps, 'objects'>,
  options: { document: FailoverDocument; catalog: CatalogDocument },
): Promise<{ processServer: string; heartbeatMs: number | undefined } | undefined> {
  const { document, catalog } = options;
  const { processServer } = catalog;
  if (processServer === undefined) return undefined;
  const { heartbeatMs, machine } = await reportOf(deps, { ...catalog, processServer });
  const final = machine?.finalBarrier;
  if (final?.failover !== document.name || final.lsn !== document.finalBarrier?.lsn)
    return undefined;
  return { processServer, heartbeatMs };
}

async function ownerOf(
  deps: Pick<RecoveryDeps, 'objects'>,
  { machineId }: CatalogDocument,
): Promise<string | undefined> {
  const found = await new Catalog({ store: deps.objects }).read(machineId);
  return found?.document.processServer;
}

async function reportOf(
  deps: Pick<RecoveryDeps, 'objects'>,
  of: { machineId: string; processServer: string },
): Promise<{ heartbeatMs: number | undefined; machine: MachineStatus | undefined }> {
  const status = await readDocument({
    store: deps.objects,
    key: vaultLayout.processServerStatus(of.processServer),
    schema: processServerStatusSchema,
  });
  return {
    heartbeatMs: status?.document.heartbeatMs,
    machine: status?.document.machines.find((one) => one.machineId === of.machineId),
  };
}
