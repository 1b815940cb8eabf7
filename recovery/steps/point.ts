/** From a journal and a wish to a recovery point: apply what is needed, choose, and hold on to it. */

import type { ApplyResult, ApplyTarget } from '../../dataplane/journal/applyRun.ts';
import { ChainError } from '../../dataplane/journal/chain.ts';
import { readPointDamage } from '../../dataplane/journal/pointDamage.ts';
import {
  lsnOfPointName,
  newestPoint,
  newestPointAtOrBefore,
  newestSoundPoint,
  offeredPoint,
  pointName,
} from '../../dataplane/journal/points.ts';
import { LEAF_SIZE } from '../../dataplane/journal/record.ts';
import { Replica } from '../../dataplane/journal/replica.ts';
import { readReplicaState } from '../../dataplane/journal/replicaFence.ts';
import { ReplicaJournal } from '../../dataplane/journal/replicaJournal.ts';
import { SegmentError } from '../../dataplane/journal/segment.ts';
import { inlineCodec } from '../../dataplane/journal/segmentCodec.ts';
import { Catalog } from '../../vault/catalog.ts';
import type { CatalogDocument } from '../../vault/documents/catalog.ts';
import { VaultDocumentError } from '../../vault/documents/codec.ts';
import type { FailoverDisk, FailoverDocument } from '../../vault/documents/failover.ts';
import type { PointDocument } from '../../vault/documents/point.ts';
import { vaultLayout } from '../../vault/layout.ts';
import { listPoints } from '../../vault/pointIndex.ts';
import type { RecoveryDeps, StepContext, StepRun } from '../context.ts';
import { FailoverFatal } from '../errors.ts';
import { diskName } from '../names.ts';

/**
 * Brings the replica up to what the wish needs, in the applier's place: a recovery must not depend on an applier that may be lost with
 * the site. Where the applier had done it already this finds nothing to do.
 */
export const applyJournal: StepRun = async (context) => {
  const { deps, entry, signal } = context;
  if (await hasPointAlready(deps, entry.document)) return 'The recovery point is there already.';
  const catalog = await catalogOf(deps, entry.document);
  const replica = await Replica.open(deps, {
    machineId: catalog.machineId,
    disks: catalog.disks,
    dataKey: await deps.openDataKey(catalog),
    holder: `recovery:${entry.document.name}`,
  });
  let reported: Promise<void> = Promise.resolve();
  try {
    const result = await replica.applyTo(targetOf(entry.document), {
      makePoints: true,
      signal,
      onProgress: (progress) => {
        // One ledger write at a time: they are chained by ETag.
        reported = reported.then(() => context.report(bytesOf(progress))).catch(() => undefined);
      },
    });
    refuseUnreached(entry.document, result);
    return appliedText(result);
  } catch (error) {
    throw isDamage(error) ? journalDamaged(entry.document, error) : error;
  } finally {
    // Also after an error: the step's end must not be written at the same time as its progress.
    await reported;
    await replica.close();
  }
};

/** A named barrier that the journal does not reach, or that the replica could not be proven to equal, is no point now or later. */
function refuseUnreached(document: FailoverDocument, result: ApplyResult): void {
  const target = targetOf(document);
  if (target === 'end') return;
  const { appliedLsn, refused } = result;
  const { machineName } = document.request;
  if (refused?.lsn === target.lsn)
    throw new FailoverFatal(
      'RecoveryPointNotProven',
      `The barrier at LSN ${target.lsn} of machine ${machineName} can't be recovered: what the vault holds of ${disksText(refused)} is not what the source held. Choose another recovery point and create a new Failover.`,
    );
  if (appliedLsn < target.lsn)
    throw new FailoverFatal(
      'RecoveryPointNotFound',
      `Machine ${machineName} has no recovery point named ${target.lsn}: its journal ends at LSN ${appliedLsn}. See the ProtectedVM's status for those it has, and create a new Failover.`,
    );
}

function appliedText({ appliedLsn, refused }: ApplyResult): string {
  const applied = `The journal is applied up to LSN ${appliedLsn}.`;
  return refused === undefined
    ? applied
    : `${applied} The barrier at LSN ${refused.lsn} is not offered: what the vault holds of ${disksText(refused)} is not what the source held; an earlier one counts.`;
}

function disksText(refused: NonNullable<ApplyResult['refused']>): string {
  return `${refused.disks.length === 1 ? 'disk' : 'disks'} ${refused.disks.join(', ')}`;
}

/** Trying again reads the same bytes, and meanwhile nothing else could be done with the machine. */
function isDamage(error: unknown): error is ChainError | SegmentError {
  return error instanceof ChainError || error instanceof SegmentError;
}

function journalDamaged(document: FailoverDocument, cause: ChainError | SegmentError) {
  return new FailoverFatal(
    'JournalDamaged',
    `The journal of machine ${document.request.machineName} can't be read to its end: ${cause.message} What could be read is applied. Create a new Failover with recoveryPoint.type LatestProcessed to bring the machine up from what is whole.`,
    { cause },
  );
}

/** A named barrier becomes a point whatever follows it; every other wish is for one that is kept anyway. */
function targetOf(document: FailoverDocument): ApplyTarget {
  const { recoveryPoint } = document.request;
  const lsn = recoveryPoint.type === 'Name' ? lsnOfPointName(recoveryPoint.name) : undefined;
  return lsn === undefined ? 'end' : { lsn };
}

/** Chooses the point, pins it so that it outlives its retention while in use, and writes down which disks come out of it. */
export const choosePoint: StepRun = async ({ deps, entry }) => {
  const { document } = entry;
  const chosen = await findPoint(deps, document);
  refuseLoss(document, chosen);
  const damage = await damageOf(deps, document, chosen);
  await deps.assertInControl();
  await deps.objects.putIfAbsent(
    vaultLayout.pointPin(document.request.machineId, chosen.lsn),
    new TextEncoder().encode(document.name),
  );
  // It may have been retired between the look and the pin.
  const point = await offeredPoint(deps.objects, { machineId: chosen.machineId, lsn: chosen.lsn });
  if (point === undefined)
    throw new Error(`Recovery point ${pointName(chosen.lsn)} was retired while it was chosen.`);
  const disks: FailoverDisk[] = point.disks.map((disk) => ({
    index: disk.index,
    name: disk.name,
    root: disk.root,
    replica: disk.replica,
    copyKey: vaultLayout.failoverDisk(document.name, point.machineId, disk.name),
    managedDisk: { name: diskName(document, disk) },
  }));
  const { lsn, timeMs, consistency } = point;
  // Of a planned failover nothing is lost: its last barrier is younger than its acceptance.
  const rpoSeconds = Math.max(0, document.acceptedAt - timeMs) / 1000;
  await entry.update({ point: { lsn, timeMs, consistency }, disks, rpoSeconds });
  return `Recovery point ${pointName(lsn)} of ${new Date(timeMs).toISOString()} (${consistency === 'App' ? 'app' : 'crash'}-consistent).${damage}`;
};

/**
 * What is known to be damaged of the point, as a sentence; empty when nothing is. Refused when it would be verified: that reads all of it
 * only to find the same.
 */
async function damageOf(
  deps: Pick<RecoveryDeps, 'objects'>,
  document: FailoverDocument,
  { machineId, lsn, disks }: PointDocument,
): Promise<string> {
  const leaves = await readPointDamage(deps.objects, { machineId, lsn });
  if (leaves === undefined) return '';
  const named = leaves.slice(0, LEAVES_NAMED).map(({ disk, leaf }) => {
    const name = disks.find(({ index }) => index === disk)?.name ?? String(disk);
    return `leaf ${leaf} of disk ${name} (64 KiB from byte ${leaf * LEAF_SIZE})`;
  });
  const what = named.length === 0 ? 'some leaves' : named.join(', ');
  if (document.request.verify === 'None')
    return ` It is damaged: ${what} are not what the source held; verify None accepts that.`;
  throw new FailoverFatal(
    'RecoveryPointDamaged',
    `Recovery point ${pointName(lsn)} of machine ${document.request.machineName} is damaged: ${what} are not what the source held. Nothing was started in Azure. Choose a point that the ProtectedVM's status does not mark damaged; or, when there is none, create a new Failover with verify None, which brings this one up as it is, and check those bytes in the machine.`,
  );
}

const LEAVES_NAMED = 8;

/** A Planned failover promises the source's last barrier: an older one would lose what was written since, and nobody would know. */
function refuseLoss(document: FailoverDocument, chosen: PointDocument): void {
  const { finalBarrier, request } = document;
  if (finalBarrier === undefined || request.recoveryPoint.type !== 'Latest') return;
  if (chosen.lsn >= finalBarrier.lsn) return;
  throw new FailoverFatal(
    'FinalBarrierNotRecovered',
    `The last barrier of machine ${request.machineName}, LSN ${finalBarrier.lsn}, became no recovery point; the newest is LSN ${chosen.lsn} of ${new Date(chosen.timeMs).toISOString()}. Nothing was started in Azure. ${finalBarrier.poweredOff ? 'The source is powered off: start it again' : 'The source is frozen: thaw or restart it'}, and it goes on replicating; or create an Unplanned Failover to accept the older point.`,
  );
}

/**
 * Lets retention have the point again, and any other that this failover pinned: a runner that died between pinning and writing it down
 * leaves a pin of a point that its successor did not choose.
 */
export async function unpinPoint({ deps, entry }: StepContext): Promise<void> {
  const { name, request } = entry.document;
  const { machineId } = request;
  const { pinned } = await listPoints(deps.objects, machineId);
  for (const lsn of pinned) {
    const key = vaultLayout.pointPin(machineId, lsn);
    const pin = await deps.objects.get(key);
    if (pin === undefined || new TextDecoder().decode(pin.body) !== name) continue;
    await deps.objects.remove(key, { etag: pin.etag });
  }
}

/** Fatal when there can be no such point; asked before anything is touched. */
export async function requirePossiblePoint(
  deps: RecoveryDeps,
  document: FailoverDocument,
): Promise<void> {
  const { machineId, recoveryPoint } = document.request;
  if (recoveryPoint.type === 'Name') {
    const named = await pointByName(deps, document, recoveryPoint.name);
    if (named !== undefined) await damageOf(deps, document, named);
  }
  if (await hasPointAlready(deps, document)) return;
  const state = await readReplicaState(deps.objects, machineId);
  if (recoveryPoint.type === 'Name') {
    const wanted = lsnOfPointName(recoveryPoint.name);
    if (wanted === undefined || wanted <= (state?.applied.lsn ?? 0n)) throw notFound(document);
  }
  if (recoveryPoint.type === 'LatestProcessed') throw notFound(document);
  if ((await newestPoint(deps.objects, machineId)) !== undefined) return;
  const catalog = await catalogOf(deps, document);
  const dataKey = await deps.openDataKey(catalog);
  const journal = new ReplicaJournal({
    objects: deps.objects,
    machineId,
    dataKey,
    codec: inlineCodec,
  });
  const barriers = await journal.barriersAfter(state?.applied.seq ?? -1, { limit: 1 });
  if (barriers === 0)
    throw new FailoverFatal(
      'NoRecoveryPoint',
      `Machine ${catalog.name} has no recovery point yet: its initial replication has not finished.`,
    );
}

/** Whether the wish is fulfilled by a point that exists, whatever the journal still holds. */
async function hasPointAlready(
  deps: Pick<RecoveryDeps, 'objects'>,
  document: FailoverDocument,
): Promise<boolean> {
  const { machineId, recoveryPoint } = document.request;
  switch (recoveryPoint.type) {
    case 'Latest':
      return false;
    case 'LatestProcessed':
      return (await newestPoint(deps.objects, machineId)) !== undefined;
    case 'Name':
      return (await pointByName(deps, document, recoveryPoint.name)) !== undefined;
    case 'Time': {
      const newest = await newestPoint(deps.objects, machineId);
      return newest !== undefined && newest.timeMs >= recoveryPoint.timeMs;
    }
  }
}

async function findPoint(
  deps: Pick<RecoveryDeps, 'objects'>,
  document: FailoverDocument,
): Promise<PointDocument> {
  const { machineId, recoveryPoint } = document.request;
  const point =
    recoveryPoint.type === 'Name'
      ? await pointByName(deps, document, recoveryPoint.name)
      : recoveryPoint.type === 'Time'
        ? await pointByTime(deps, { machineId, timeMs: recoveryPoint.timeMs })
        : await latestPoint(deps, document);
  if (point === undefined) throw notFound(document);
  return point;
}

/** One that is whole is better than one that is newer; but of a Planned failover only the last barrier's will do. */
async function latestPoint(
  deps: Pick<RecoveryDeps, 'objects'>,
  { finalBarrier, request }: FailoverDocument,
): Promise<PointDocument | undefined> {
  const { machineId, recoveryPoint } = request;
  const isLast = finalBarrier !== undefined && recoveryPoint.type === 'Latest';
  const sound = isLast ? undefined : await newestSoundPoint(deps.objects, machineId);
  return sound ?? (await newestPoint(deps.objects, machineId));
}

/** Likewise. */
async function pointByTime(
  deps: Pick<RecoveryDeps, 'objects'>,
  wish: { machineId: string; timeMs: number },
): Promise<PointDocument | undefined> {
  return (
    (await newestPointAtOrBefore(deps.objects, { ...wish, sound: true })) ??
    (await newestPointAtOrBefore(deps.objects, wish))
  );
}

async function pointByName(
  deps: Pick<RecoveryDeps, 'objects'>,
  document: FailoverDocument,
  name: string,
): Promise<PointDocument | undefined> {
  const lsn = lsnOfPointName(name);
  if (lsn === undefined) return undefined;
  try {
    return await offeredPoint(deps.objects, { machineId: document.request.machineId, lsn });
  } catch (error) {
    if (!(error instanceof VaultDocumentError)) throw error;
    throw new FailoverFatal(
      'RecoveryPointDamaged',
      `${error.message} Choose another recovery point and create a new Failover.`,
      { cause: error },
    );
  }
}

function notFound(document: FailoverDocument): FailoverFatal {
  const { recoveryPoint, machineName } = document.request;
  const wish =
    recoveryPoint.type === 'Name'
      ? `named ${recoveryPoint.name}`
      : recoveryPoint.type === 'Time'
        ? `at or before ${new Date(recoveryPoint.timeMs).toISOString()}`
        : 'that is processed';
  return new FailoverFatal(
    'RecoveryPointNotFound',
    `Machine ${machineName} has no recovery point ${wish}. See the ProtectedVM's status for those it has, and create a new Failover.`,
  );
}

async function catalogOf(
  deps: Pick<RecoveryDeps, 'objects'>,
  document: FailoverDocument,
): Promise<CatalogDocument> {
  const found = await new Catalog({ store: deps.objects }).read(document.request.machineId);
  if (found === undefined)
    throw new FailoverFatal(
      'MachineUnknown',
      `Machine ${document.request.machineName} is not in the vault's catalog.`,
    );
  return found.document;
}

function bytesOf(progress: { bytesDone: number; bytesTotal: number; bytesPerSecond: number }) {
  const { bytesDone, bytesTotal, bytesPerSecond } = progress;
  return { bytesDone, bytesTotal, bytesPerSecond };
}
