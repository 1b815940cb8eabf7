import { ChainError } from '../../dataplane/journal/chain.ts';
import { sealJournal as sealInVault } from '../../dataplane/journal/claim.ts';
import { inlineCodec } from '../../dataplane/journal/segmentCodec.ts';
import { Catalog } from '../../vault/catalog.ts';
import type { FailoverDocument } from '../../vault/documents/failover.ts';
import type { RecoveryDeps, StepContext, StepRun } from '../context.ts';
import { FailoverFatal } from '../errors.ts';
import { takeSide } from './catalog.ts';
import { standstill } from './finalSync.ts';

/** A process server that starts again, or hears nothing of a frozen machine for a moment, says nothing of it meanwhile. */
const UNSURE_MS = 120_000;

/**
 * Ends the source's journal: whatever still writes it finds out at its next segment and stops. From here on the machine's disks are
 * written by Azure's side alone.
 */
export const sealJournal: StepRun = async (context) => {
  const { deps, entry, signal } = context;
  await requireStandstill(deps, context);
  const catalog = await takeSide(deps, entry.document);
  try {
    const { position, failover } = await sealInVault(
      { ...deps, codec: inlineCodec },
      {
        machineId: catalog.machineId,
        dataKey: await deps.openDataKey(catalog),
        failover: entry.document.name,
        side: 'Source',
        signal,
      },
    );
    await entry.update({
      seal: {
        sequence: position.seq,
        writerEpoch: position.writerEpoch ?? catalog.writerEpoch,
        lastLsn: position.lsn,
      },
    });
    requireNothingAfter(entry.document, position.lsn);
    const by = failover === entry.document.name ? '' : ` (by failover ${failover} already)`;
    return `The journal is sealed at LSN ${position.lsn}${by}.`;
  } catch (error) {
    if (error instanceof ChainError && error.code === 'ChainEmpty')
      throw new FailoverFatal('NothingToRecover', error.message, { cause: error });
    throw error;
  }
};

/** Planned: between its last barrier and the seal the source may have been thawed, or turned on again. */
async function requireStandstill(deps: RecoveryDeps, context: StepContext): Promise<void> {
  const { document } = context.entry;
  if (document.finalBarrier === undefined) return;
  const until = deps.clock.now() + UNSURE_MS;
  let first: Awaited<ReturnType<typeof standstill>>;
  for (;;) {
    const catalog = await new Catalog({ store: deps.objects }).read(document.request.machineId);
    // From then on its process server is not told of the machine any more, and tells nothing of it.
    if (catalog === undefined || catalog.document.activeSide === 'Azure') return;
    const told = await standstill(deps, { document, catalog: catalog.document });
    if (told?.processServer !== first?.processServer) first = told;
    // One that fell silent meanwhile says for ever what it said last, and anybody can thaw a machine, or turn it on.
    else if (told?.heartbeatMs !== first?.heartbeatMs) return;
    if (deps.clock.now() > until)
      throw wentOn(document, 'its process server does not say any more that it stands still');
    await deps.clock.sleep(deps.pollMs, context.signal);
  }
}

/** Nothing was journaled behind the last barrier: the journal itself says so, and after the seal nothing can be. */
function requireNothingAfter(document: FailoverDocument, lastLsn: bigint): void {
  const { finalBarrier } = document;
  if (finalBarrier !== undefined && lastLsn !== finalBarrier.lsn)
    throw wentOn(document, `its journal ends at LSN ${lastLsn}`);
}

function wentOn(document: FailoverDocument, evidence: string): FailoverFatal {
  return new FailoverFatal(
    'SourceWentOn',
    `Machine ${document.request.machineName} was not kept frozen behind its last barrier, LSN ${document.finalBarrier?.lsn}: ${evidence}. Bringing that barrier up would lose what was written since, so nothing was started in Azure and the source goes on. Leave its filesystems frozen (or it turned off) and create a new Planned Failover.`,
  );
}
