/**
 * Removes what a failover made, against the order of creation. Each looks first: what does not carry this failover's tag is somebody
 * else's and is never touched, and what is gone already is no error.
 */
import type { AzureResourceRef } from '../../platform/ports.ts';
import type { StepContext, StepRun } from '../context.ts';
import { isOwn } from '../context.ts';
import { unpinPoint } from './point.ts';

export const removeVm: StepRun = async (context) => {
  const { document } = context.entry;
  if (document.vm === undefined) return 'There was no virtual machine to remove.';
  const { compute } = context.deps;
  const removed = await removeOwn(context, refOf(context, document.vm.name), {
    get: (ref) => compute.vm(ref),
    remove: (ref) => compute.removeVm(ref),
  });
  return removed ? `Removed virtual machine ${document.vm.name}.` : 'The virtual machine was gone.';
};

export const removeNics: StepRun = async (context) => {
  const { compute } = context.deps;
  let removed = 0;
  for (const nic of context.entry.document.nics ?? [])
    if (
      await removeOwn(context, refOf(context, nic.name), {
        get: (ref) => compute.nic(ref),
        remove: (ref) => compute.removeNic(ref),
      })
    )
      removed++;
  return `Removed ${removed} network interfaces.`;
};

export const removeDisks: StepRun = async (context) => {
  const { compute } = context.deps;
  let removed = 0;
  for (const disk of context.entry.document.disks ?? []) {
    const ref = refOf(context, disk.managedDisk.name);
    const found = await compute.disk(ref);
    if (found === undefined || !isOwn(context.entry.document, found)) continue;
    await context.deps.assertInControl();
    if (found.state === 'ActiveSAS') await compute.revokeDiskRead(ref);
    await compute.removeDisk(ref);
    removed++;
  }
  return `Removed ${removed} managed disks.`;
};

/** The copies that managed disks were imported from; the disks no longer need them. */
export const removeCopies: StepRun = async (context) => {
  const copies = (context.entry.document.disks ?? []).map((disk) => disk.copyKey);
  await context.deps.assertInControl();
  for (const key of copies) await context.deps.pages.remove(key);
  await unpinPoint(context);
  return `Removed ${copies.length} temporary copies.`;
};

interface Removable<T> {
  get(ref: AzureResourceRef): Promise<T | undefined>;
  remove(ref: AzureResourceRef): Promise<void>;
}

async function removeOwn<T extends { tags: Record<string, string> }>(
  context: StepContext,
  ref: AzureResourceRef,
  resource: Removable<T>,
): Promise<boolean> {
  const found = await resource.get(ref);
  if (found === undefined || !isOwn(context.entry.document, found)) return false;
  await context.deps.assertInControl();
  await resource.remove(ref);
  return true;
}

function refOf(context: StepContext, name: string): AzureResourceRef {
  return { resourceGroup: context.entry.document.request.target.resourceGroup, name };
}
