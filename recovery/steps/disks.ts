/** Managed disks out of a recovery point: a copy of each replica's snapshot, an import of the copy, and the proof of what came out. */
import { RootBuilder } from '../../dataplane/journal/merkle.ts';
import { VHD_FOOTER_SIZE } from '../../dataplane/journal/vhd.ts';
import { FarshoreError } from '../../platform/errors.ts';
import type { AzureResourceRef } from '../../platform/ports.ts';
import type { FailoverDisk } from '../../vault/documents/failover.ts';
import type { StepContext, StepRun } from '../context.ts';
import { isOwn, ownTags } from '../context.ts';
import { FailoverFatal } from '../errors.ts';
import { Speedometer } from '../speedometer.ts';

const READ_SIZE = 4 << 20;
const READ_GRANT_SECONDS = 6 * 3600;

/** Azure imports no snapshot: each is copied to a blob of its own first (server-side, non-empty ranges only). */
export const copyDisks: StepRun = async (context) => {
  const { deps } = context;
  const disks = disksOf(context);
  for (const disk of disks) {
    await deps.assertInControl();
    await deps.pages.startCopy({
      from: disk.replica.key,
      snapshot: disk.replica.snapshot,
      to: disk.copyKey,
    });
  }
  const speed = new Speedometer(deps.clock);
  for (;;) {
    const progress = { done: 0, total: 0 };
    let pending = 0;
    for (const disk of disks) {
      const copy = await deps.pages.copyState(disk.copyKey);
      if (copy.state === 'failed' || copy.state === 'missing') {
        // A failed copy leaves an empty blob under the name: the next attempt needs the name free.
        await deps.assertInControl();
        await deps.pages.remove(disk.copyKey);
        const reason = copy.state === 'failed' ? copy.reason : 'the copy is gone';
        throw new DiskCopyFailed(disk.name, reason);
      }
      if (copy.state !== 'pending') continue;
      pending++;
      progress.done += copy.copied;
      progress.total += copy.total;
    }
    if (pending === 0) return `Copied ${disks.length} disks of the recovery point.`;
    await context.report(speed.progress(progress));
    await deps.clock.sleep(deps.pollMs, context.signal);
  }
};

export const importDisks: StepRun = async (context) => {
  const { deps, entry } = context;
  const { target } = entry.document.request;
  const disks = disksOf(context);
  for (const [position, disk] of disks.entries()) {
    const ref = refOf(context, disk);
    const existing = await deps.compute.disk(ref);
    if (existing !== undefined && !isOwn(entry.document, existing))
      throw new FailoverFatal(
        'NameInUse',
        `There is a managed disk ${ref.name} in resource group ${ref.resourceGroup} that this failover did not make. Remove or rename it, and create a new Failover.`,
      );
    await deps.assertInControl();
    const managed = await deps.compute.importDisk(ref, {
      location: target.location,
      sourceUrl: deps.pages.url(disk.copyKey),
      storageAccountId: target.storageAccountId,
      type: target.diskType,
      zone: target.zone,
      os: position === 0 ? { type: target.osType, generation: target.generation } : undefined,
      tags: ownTags(entry.document),
    });
    await updateDisk(context, disk, { managedDisk: { name: ref.name, id: managed.id } });
  }
  return `Made ${disks.length} managed disks.`;
};

/**
 * Reads every managed disk back, as Azure holds it now, and computes its root anew: only bytes that hash to what was read from the
 * source at the barrier may boot.
 */
export const verifyDisks: StepRun = async (context) => {
  const { deps } = context;
  const disks = disksOf(context);
  const speed = new Speedometer(deps.clock);
  let doneBefore = 0;
  for (const disk of disks) {
    const ref = refOf(context, disk);
    await deps.assertInControl();
    const { url } = await deps.compute.grantDiskRead(ref, { seconds: READ_GRANT_SECONDS });
    const { root, bytesRead } = await rootOf(context, url, async (done, total) => {
      await context.report(speed.progress({ done: doneBefore + done, total: doneBefore + total }));
    });
    await deps.compute.revokeDiskRead(ref);
    doneBefore += bytesRead;
    const rootMatches = root === disk.root;
    await updateDisk(context, disk, { rootMatches });
    if (!rootMatches)
      throw new FailoverFatal(
        'RootMismatch',
        `Disk ${disk.name} does not hold what the source held at this recovery point (root ${root}, expected ${disk.root}). It was not started. Choose an older recovery point.`,
      );
  }
  return `All ${disks.length} disks equal the source at the recovery point, byte for byte.`;
};

class DiskCopyFailed extends FarshoreError {
  constructor(disk: string, reason: string) {
    super('DiskCopyFailed', `The copy of disk ${disk} failed: ${reason}.`);
  }
}

async function rootOf(
  context: StepContext,
  url: string,
  onProgress: (done: number, total: number) => Promise<void>,
): Promise<{ root: string; bytesRead: number }> {
  const { images } = context.deps;
  const size = await images.size(url);
  // The body alone is hashed; some readers show the footer too, others cut it off.
  const body = size % (1 << 20) === VHD_FOOTER_SIZE ? size - VHD_FOOTER_SIZE : size;
  const ranges: { offset: number; length: number }[] = [];
  for await (const range of images.ranges(url)) ranges.push(range);
  const total = ranges.reduce((sum, range) => sum + range.length, 0);
  const builder = new RootBuilder({ sizeBytes: body });
  let done = 0;
  for (const range of ranges)
    for (let offset = range.offset; offset < Math.min(range.offset + range.length, body); ) {
      context.signal.throwIfAborted();
      const length = Math.min(READ_SIZE, range.offset + range.length - offset, body - offset);
      builder.add(offset, await images.read(url, { offset, length }));
      offset += length;
      done += length;
      await onProgress(done, total);
    }
  return { root: builder.finish(), bytesRead: done };
}

function disksOf(context: StepContext): FailoverDisk[] {
  const { disks } = context.entry.document;
  if (disks === undefined || disks.length === 0)
    throw new FailoverFatal(
      'LedgerIncomplete',
      `Failover ${context.entry.document.name} has no disks in the ledger. Create a new Failover, and report this.`,
    );
  return disks;
}

async function updateDisk(
  context: StepContext,
  disk: FailoverDisk,
  change: Partial<FailoverDisk>,
): Promise<void> {
  const disks = disksOf(context).map((one) =>
    one.index === disk.index ? { ...one, ...change } : one,
  );
  await context.entry.update({ disks });
}

function refOf(context: StepContext, disk: FailoverDisk): AzureResourceRef {
  const { resourceGroup } = context.entry.document.request.target;
  return { resourceGroup, name: disk.managedDisk.name };
}
