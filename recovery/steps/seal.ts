import { ChainError } from '../../dataplane/journal/chain.ts';
import { sealJournal as sealInVault } from '../../dataplane/journal/claim.ts';
import { inlineCodec } from '../../dataplane/journal/segmentCodec.ts';
import type { StepRun } from '../context.ts';
import { FailoverFatal } from '../errors.ts';
import { takeSide } from './catalog.ts';

/**
 * Ends the source's journal: whatever still writes it finds out at its next segment and stops. From here on the machine's disks are
 * written by Azure's side alone.
 */
export const sealJournal: StepRun = async ({ deps, entry, signal }) => {
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
    const by = failover === entry.document.name ? '' : ` (by failover ${failover} already)`;
    return `The journal is sealed at LSN ${position.lsn}${by}.`;
  } catch (error) {
    if (error instanceof ChainError && error.code === 'ChainEmpty')
      throw new FailoverFatal('NothingToRecover', error.message, { cause: error });
    throw error;
  }
};
