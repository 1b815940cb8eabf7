/** From a journal and a wish to a recovery point: apply what is needed, choose, and hold on to it. */
import {
  lsnOfPointName,
  newestPoint,
  newestPointAtOrBefore,
  pointName,
  readPoint,
} from '../../dataplane/journal/points.ts';
import { type ApplyTarget, Replica } from '../../dataplane/journal/replica.ts';
import { readReplicaState } from '../../dataplane/journal/replicaFence.ts';
import { ReplicaJournal } from '../../dataplane/journal/replicaJournal.ts';
import { inlineCodec } from '../../dataplane/journal/segmentCodec.ts';
import { Catalog } from '../../vault/catalog.ts';
import type { CatalogDocument, PointDocument } from '../../vault/documents.ts';
import { vaultLayout } from '../../vault/layout.ts';
import type { FailoverDisk, FailoverDocument } from '../../vault/ledger.ts';
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
  try {
    let reported: Promise<void> = Promise.resolve();
    const { appliedLsn } = await replica.applyTo(targetOf(entry.document), {
      makePoints: true,
      signal,
      onProgress: (progress) => {
        // One ledger write at a time: they are chained by ETag.
        reported = reported.then(() => context.report(bytesOf(progress))).catch(() => undefined);
      },
    });
    await reported;
    return `The journal is applied up to LSN ${appliedLsn}.`;
  } finally {
    await replica.close();
  }
};

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
  await deps.objects.putIfAbsent(
    vaultLayout.pointPin(document.request.machineId, chosen.lsn),
    new TextEncoder().encode(document.name),
  );
  // It may have been retired between the look and the pin.
  const point = await readPoint(deps.objects, { machineId: chosen.machineId, lsn: chosen.lsn });
  if (point === undefined)
    throw new Error(`Recovery point ${pointName(chosen.lsn)} was retired while it was chosen.`);
  const disks: FailoverDisk[] = point.disks.map((disk) => ({
    index: disk.index,
    name: disk.name,
    root: disk.root,
    replica: disk.replica,
    copyKey: vaultLayout.failoverDisk(document.name, point.machineId, disk.name),
    managedDisk: { name: diskName(document, disk.name) },
  }));
  const { lsn, timeMs, consistency } = point;
  // Of a planned failover nothing is lost: its last barrier is younger than its acceptance.
  const rpoSeconds = Math.max(0, document.acceptedAt - timeMs) / 1000;
  await entry.update({ point: { lsn, timeMs, consistency }, disks, rpoSeconds });
  return `Recovery point ${pointName(lsn)} of ${new Date(timeMs).toISOString()} (${consistency === 'App' ? 'app' : 'crash'}-consistent).`;
};

/** Lets retention have the point again. */
export async function unpinPoint({ deps, entry }: StepContext): Promise<void> {
  const { point, request } = entry.document;
  if (point !== undefined)
    await deps.objects.remove(vaultLayout.pointPin(request.machineId, point.lsn));
}

/** Fatal when there can be no such point; asked before anything is touched. */
export async function requirePossiblePoint(
  deps: RecoveryDeps,
  document: FailoverDocument,
): Promise<void> {
  if (await hasPointAlready(deps, document)) return;
  const { machineId, recoveryPoint } = document.request;
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
        ? await newestPointAtOrBefore(deps.objects, { machineId, timeMs: recoveryPoint.timeMs })
        : await newestPoint(deps.objects, machineId);
  if (point === undefined) throw notFound(document);
  return point;
}

async function pointByName(
  deps: Pick<RecoveryDeps, 'objects'>,
  document: FailoverDocument,
  name: string,
): Promise<PointDocument | undefined> {
  const lsn = lsnOfPointName(name);
  if (lsn === undefined) return undefined;
  return await readPoint(deps.objects, { machineId: document.request.machineId, lsn });
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
