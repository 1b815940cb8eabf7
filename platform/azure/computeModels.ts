/** Azure's shapes to ours and back. What Azure leaves out is read as the least that can be relied on. */
import type { Disk, ResourceSku, VirtualMachine as VirtualMachineModel } from '@azure/arm-compute';
import type { NetworkInterface as NicModel } from '@azure/arm-network';
import { ComputeError } from '../computeErrors.ts';
import type { Compute, ManagedDisk, NetworkInterface, VirtualMachine, VmSize } from '../ports.ts';

const GIB = 2 ** 30;

export function toManagedDisk(disk: Disk): ManagedDisk {
  return {
    id: idOf(disk),
    state: diskState(disk.diskState),
    provisioning: provisioning(disk.provisioningState),
    sizeBytes: disk.diskSizeBytes ?? (disk.diskSizeGB ?? 0) * GIB,
    tags: disk.tags ?? {},
  };
}

export function toNic(nic: NicModel): NetworkInterface {
  return {
    id: idOf(nic),
    provisioning: provisioning(nic.provisioningState),
    privateIp: nic.ipConfigurations?.[0]?.privateIPAddress,
    tags: nic.tags ?? {},
  };
}

export function toVirtualMachine(vm: VirtualMachineModel): VirtualMachine {
  return {
    id: idOf(vm),
    provisioning: provisioning(vm.provisioningState),
    power: power(vm.instanceView?.statuses?.map((status) => status.code ?? '') ?? []),
    tags: vm.tags ?? {},
  };
}

/** The sizes that this subscription may use in the location. */
export function toVmSizes(skus: readonly ResourceSku[], location: string): VmSize[] {
  return skus
    .filter((sku) => sku.resourceType === 'virtualMachines' && sku.name !== undefined)
    .filter((sku) => sku.locations?.some((one) => one.toLowerCase() === location.toLowerCase()))
    .filter((sku) => !sku.restrictions?.some((restriction) => restriction.type === 'Location'))
    .map((sku) => {
      const capability = new Map(sku.capabilities?.map((one) => [one.name, one.value]));
      const number = (name: string) => Number(capability.get(name) ?? 0);
      return {
        name: sku.name ?? '',
        cores: number('vCPUs'),
        memoryBytes: number('MemoryGB') * GIB,
        maxDataDisks: number('MaxDataDiskCount'),
        maxNics: Math.max(1, number('MaxNetworkInterfaces')),
        premiumDisks: capability.get('PremiumIO')?.toLowerCase() === 'true',
        generations: generationsOf(capability.get('HyperVGenerations')),
        zones: zonesOf(sku, location),
      };
    });
}

function generationsOf(told: string | undefined): VmSize['generations'] {
  const names = (told ?? 'V1').split(',').map((one) => one.trim());
  return (['V1', 'V2'] as const).filter((one) => names.includes(one));
}

function zonesOf(sku: ResourceSku, location: string): string[] {
  const here = sku.locationInfo?.find(
    (one) => one.location?.toLowerCase() === location.toLowerCase(),
  );
  const withheld = sku.restrictions
    ?.filter((restriction) => restriction.type === 'Zone')
    .flatMap((restriction) => restriction.restrictionInfo?.zones ?? []);
  return (here?.zones ?? []).filter((zone) => withheld?.includes(zone) !== true).sort();
}

/** The machine over disks that exist: nothing inside is set up anew, and nothing that it uses is deleted with it. */
export function vmParameters(options: Parameters<Compute['createVm']>[1]): VirtualMachineModel {
  return {
    location: options.location,
    tags: options.tags,
    ...(options.zone === undefined ? {} : { zones: [options.zone] }),
    hardwareProfile: { vmSize: options.size },
    // Left out, it is not the same in all regions and years.
    securityProfile: { securityType: 'Standard' },
    storageProfile: {
      osDisk: {
        osType: options.osType,
        createOption: 'Attach',
        deleteOption: 'Detach',
        managedDisk: { id: options.osDiskId },
      },
      dataDisks: options.dataDisks.map(({ lun, id }) => ({
        lun,
        createOption: 'Attach',
        deleteOption: 'Detach',
        managedDisk: { id },
      })),
    },
    networkProfile: {
      networkInterfaces: options.nicIds.map((id, index) => ({
        id,
        primary: index === 0,
        deleteOption: 'Detach',
      })),
    },
    diagnosticsProfile: { bootDiagnostics: { enabled: true } },
  };
}

function idOf(resource: { id?: string; name?: string }): string {
  if (resource.id !== undefined) return resource.id;
  throw new ComputeError(
    'OperationFailed',
    `Azure answered with a resource that has no id (name ${resource.name ?? 'not given'}). Try again.`,
  );
}

function provisioning(state: string | undefined): 'Succeeded' | 'Failed' | 'InProgress' {
  if (state === 'Succeeded') return 'Succeeded';
  return state === 'Failed' || state === 'Canceled' ? 'Failed' : 'InProgress';
}

function diskState(state: string | undefined): ManagedDisk['state'] {
  if (state === 'Unattached' || state === 'ActiveSAS') return state;
  // Reserved: attached to a machine that is deallocated.
  return state === 'Attached' || state === 'Reserved' ? 'Attached' : 'Other';
}

function power(codes: readonly string[]): VirtualMachine['power'] {
  const code = codes.find((one) => one.startsWith('PowerState/'))?.slice('PowerState/'.length);
  if (code === 'running' || code === 'starting' || code === 'stopped' || code === 'deallocated')
    return code;
  return 'unknown';
}
