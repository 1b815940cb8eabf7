/** Everything that can be known to be wrong before anything is touched. */
import { DISK_SIZE_MAX } from '../../dataplane/journal/merkle.ts';
import type { Compute } from '../../platform/ports.ts';
import type { CatalogDocument } from '../../vault/documents/catalog.ts';
import type { FailoverTarget } from '../../vault/documents/failover.ts';
import type { StepRun } from '../context.ts';
import { FailoverFatal } from '../errors.ts';
import { claimMachine } from './catalog.ts';
import { requirePossiblePoint } from './point.ts';

/** An OS disk with an MBR is usable up to 2 TiB (generation 1), 4 TiB with a GPT (generation 2). */
const OS_DISK_MAX = { V1: 2 * 2 ** 40, V2: 4 * 2 ** 40 } as const;

export const validate: StepRun = async ({ deps, entry }) => {
  const { request } = entry.document;
  const catalog = await claimMachine(deps, entry.document);
  if (catalog.activeSide === 'Azure')
    throw new FailoverFatal(
      'AlreadyInAzure',
      `Machine ${catalog.name} is active in Azure already; there is nothing on its source to fail over.`,
    );
  const problems = await targetProblems(deps, { target: request.target, disks: catalog.disks });
  const [first] = problems;
  if (first !== undefined)
    throw new FailoverFatal(
      first.code,
      `${problems.map((problem) => problem.message).join(' ')} Nothing was changed. Correct the target and create a new Failover.`,
    );
  await deps.openDataKey(catalog);
  await requirePossiblePoint(deps, entry.document);
  return 'The target is valid and there is something to recover.';
};

/** What stands in the way of building this machine, each with what to do. Also behind ProtectedVM's TargetValid. */
export async function targetProblems(
  deps: { compute: Pick<Compute, 'resourceGroupExists' | 'subnet' | 'vmSizes'> },
  wanted: { target: FailoverTarget; disks: CatalogDocument['disks'] },
): Promise<{ code: string; message: string }[]> {
  const { target, disks } = wanted;
  const problems: { code: string; message: string }[] = [];
  const refuse = (code: string, message: string) => problems.push({ code, message });
  if (!(await deps.compute.resourceGroupExists(target.resourceGroup)))
    refuse('ResourceGroupNotFound', `Resource group ${target.resourceGroup} does not exist.`);
  for (const nic of target.nics) {
    const subnet = await deps.compute.subnet(nic);
    if (subnet === undefined)
      refuse(
        'SubnetNotFound',
        `Subnet ${nic.subnet} of network ${nic.network} in resource group ${nic.resourceGroup} does not exist.`,
      );
    else if (subnet.location !== target.location)
      refuse(
        'SubnetElsewhere',
        `Network ${nic.network} is in ${subnet.location}, the machine is to be in ${target.location}.`,
      );
  }
  const size = (await deps.compute.vmSizes(target.location)).find(
    (one) => one.name === target.size,
  );
  if (size === undefined)
    refuse('SizeNotAvailable', `VM size ${target.size} is not offered in ${target.location}.`);
  else {
    if (target.zone !== undefined && !size.zones.includes(target.zone))
      refuse(
        'ZoneNotAvailable',
        `${size.name} is not offered in zone ${target.zone} of ${target.location}${size.zones.length === 0 ? ', nor in any other zone there' : `, but in ${size.zones.join(', ')}`}.`,
      );
    if (!size.generations.includes(target.generation))
      refuse(
        'GenerationNotSupported',
        `${size.name} does not run machines of generation ${target.generation}.`,
      );
    if (disks.length - 1 > size.maxDataDisks)
      refuse(
        'TooManyDisks',
        `The machine has ${disks.length - 1} data disks; ${size.name} takes ${size.maxDataDisks}.`,
      );
    if (target.nics.length > size.maxNics)
      refuse(
        'TooManyNics',
        `${target.nics.length} interfaces are asked for; ${size.name} takes ${size.maxNics}.`,
      );
    if (target.diskType.startsWith('Premium') && !size.premiumDisks)
      refuse('PremiumNotSupported', `${size.name} takes no ${target.diskType} disks.`);
  }
  const [osDisk] = disks;
  if (osDisk !== undefined && osDisk.sizeBytes > OS_DISK_MAX[target.generation])
    refuse(
      'OsDiskTooLarge',
      `Disk ${osDisk.name} is larger than a generation ${target.generation} machine boots from.`,
    );
  for (const disk of disks)
    if (disk.sizeBytes > DISK_SIZE_MAX)
      refuse('DiskTooLarge', `Disk ${disk.name} is larger than 32 TiB.`);
  return problems;
}
