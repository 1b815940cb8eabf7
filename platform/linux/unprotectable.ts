/** Which block devices can be protected as disks: whole ones whose driver works by requests, all of whose writes go through them. */
import type { Sysfs } from './sysfs.ts';

/** Why a device can't be protected as a disk, and what to protect instead; undefined when it can. */
export function whyUnprotectable(
  sysfs: Sysfs,
  device: { path: string; name: string },
): string | undefined {
  const { path, name } = device;
  const of = (file: string) => sysfs.attribute(name, file);
  if (sysfs.partitionOf(name) !== undefined)
    return `${path} is a partition: only whole disks are protected; ${instead(sysfs, name)}`;
  if (of('hidden') === '1')
    return `${path} is one path of an NVMe namespace under native multipathing, whose writes can't be tracked: ${BOOT_WITHOUT_MULTIPATH}`;
  if (isMultipath(sysfs, name))
    return `${path} is the multipath device ${of('dm/name')}, whose writes can't be tracked: ${ONE_PATH}`;
  if (of('dm/name') !== undefined)
    return `${path} is the mapped device ${of('dm/name')} (LVM, LUKS and the like), whose writes can't be tracked: ${instead(sysfs, name)}`;
  if (of('md/level') !== undefined)
    return `${path} is a software RAID, whose writes can't be tracked: ${instead(sysfs, name)}`;
  if (name.startsWith('zram'))
    return `${path} is compressed memory and holds nothing that outlives the machine: leave it out`;
  // By its name: the disk below has a directory `bcache` too.
  if (name.startsWith('bcache'))
    return `${path} is a bcache device, whose writes can't be tracked: ${instead(sysfs, name)}`;
  const multipath = sysfs.neighbours(name, 'holders').find((holder) => isMultipath(sysfs, holder));
  // Its own account balances, whatever was written through the other paths.
  if (multipath !== undefined)
    return `${path} is one path of the multipath device ${sysfs.attribute(multipath, 'dm/name')}, and what is written through another can't be seen: ${ONE_PATH}`;
  if (!sysfs.isRequestBased(name))
    return name.startsWith('nvme')
      ? `${path} is an NVMe namespace under native multipathing, whose writes can't be tracked: ${BOOT_WITHOUT_MULTIPATH}`
      : `${path} is not driven by requests (${name}), so its writes can't be tracked: ${instead(sysfs, name)}`;
  const zoned = of('queue/zoned');
  if (zoned !== undefined && zoned !== 'none')
    return `${path} is a ${zoned} zoned disk, which a managed disk can't stand in for: leave it out`;
  if (Number(of('size') ?? 0) === 0) return `${path} has no medium: attach one, or leave it out`;
  if (of('queue/iostats') !== '1')
    return `the kernel does not count what is written to ${path}: turn it on with "echo 1 > /sys/block/${name}/queue/iostats"`;
  return undefined;
}

const BOOT_WITHOUT_MULTIPATH = 'boot with nvme_core.multipath=N, or leave it out';
const ONE_PATH = 'take all paths but one away, and multipathing off it, or leave it out';

function isMultipath(sysfs: Sysfs, name: string): boolean {
  return sysfs.attribute(name, 'dm/uuid')?.startsWith('mpath-') === true;
}

/** The disks below, unless one of them can't be protected either. */
function instead(sysfs: Sysfs, name: string): string {
  const disks = sysfs
    .disksBelow(name)
    .filter((disk) => disk !== name)
    .map((disk) => ({ path: `/dev/${disk}`, name: disk }));
  if (disks.length === 0) return 'leave it out';
  for (const disk of disks) {
    const why = whyUnprotectable(sysfs, disk);
    if (why !== undefined) return `it lies on ${disk.path}, but ${why}`;
  }
  return `protect ${disks.map((disk) => disk.path).join(' and ')} instead; what lies on top is protected with it`;
}
