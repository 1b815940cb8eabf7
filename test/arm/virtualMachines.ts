/** Virtual machines over disks and network interfaces that exist (createOption Attach). */
import { randomBytes } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { type Answer, type ArmCall, field, list, text } from './call.ts';
import { type Size, sizes } from './catalogue.ts';
import type { EmulatorContext } from './context.ts';
import { ArmFailure, conflict, invalid, notFound } from './failure.ts';
import type { MachineRoom } from './machineRoom.ts';
import { type Resource, view } from './resources.ts';

const VM = 'Microsoft.Compute/virtualMachines';

export function putVm(context: EmulatorContext, call: ArmCall, room: MachineRoom): Answer {
  return context.put(call, {
    prepare: () => {
      const location = context.requireLocation(text(call.body, 'location'));
      const zones = list(call.body, 'zones').map(String);
      const unknown = zones.find((zone) => !location.zones.includes(zone));
      if (unknown !== undefined)
        throw invalid('zones', `The zone '${unknown}' is not supported in '${location.name}'.`);
      const size = requireSize(call);
      refuseOverQuota(context, { location: location.name, size, id: call.id });
      if (field(call.body, 'properties', 'osProfile') !== undefined)
        throw invalid('osProfile', 'osProfile is not allowed with an attached OS disk.');
      const place = { location: location.name, zone: zones[0], vm: call.id };
      const disks = requireDisks(context, call, { ...place, size });
      const nics = requireNics(context, call, { ...place, size });
      for (const disk of disks) attach(disk, call.id);
      for (const nic of nics) nic.properties.virtualMachine = { id: call.id };
      return {
        location: location.name,
        ...(zones.length === 0 ? {} : { zones }),
        properties: {
          ...(field(call.body, 'properties') as Record<string, unknown>),
          provisioningState: 'Creating',
          vmId: randomBytes(16).toString('hex'),
          timeCreated: new Date().toISOString(),
        },
        hidden: { serialSecret: randomBytes(16).toString('hex'), power: 'starting' },
      };
    },
    work: (vm) => room.powerOn(vm),
  });
}

export function getVm(context: EmulatorContext, call: ArmCall, room: MachineRoom): Answer {
  const vm = requireVm(context, call);
  const body = view(vm);
  if (/instanceview/i.test(call.query.get('$expand') ?? ''))
    body.properties = { ...vm.properties, instanceView: instanceView(vm, room) };
  return { status: 200, body };
}

export function getInstanceView(
  context: EmulatorContext,
  call: ArmCall,
  room: MachineRoom,
): Answer {
  return { status: 200, body: instanceView(requireVm(context, call), room) };
}

function instanceView(vm: Resource, room: MachineRoom): unknown {
  const power = room.power(vm);
  const state = vm.properties.provisioningState.toLowerCase();
  return {
    statuses: [
      {
        code: `ProvisioningState/${state}`,
        level: 'Info',
        displayStatus: `Provisioning ${state}`,
        time: new Date().toISOString(),
      },
      ...(state === 'creating'
        ? []
        : [{ code: `PowerState/${power}`, level: 'Info', displayStatus: `VM ${power}` }]),
    ],
  };
}

export function deleteVm(context: EmulatorContext, call: ArmCall, room: MachineRoom): Answer {
  return context.delete(call, {
    refuse: () => undefined,
    work: async (vm) => {
      await room.powerOff(vm, 'stopped');
      for (const disk of context.resources.list())
        if (disk.managedBy?.toLowerCase() === vm.id.toLowerCase()) {
          delete disk.managedBy;
          disk.properties.diskState = 'Unattached';
        }
      for (const nic of context.resources.list({ type: 'Microsoft.Network/networkInterfaces' }))
        if (text(nic.properties, 'virtualMachine', 'id')?.toLowerCase() === vm.id.toLowerCase())
          delete nic.properties.virtualMachine;
      await rm(context.serialFile(vm), { force: true });
    },
  });
}

export function startVm(context: EmulatorContext, call: ArmCall, room: MachineRoom): Answer {
  const vm = requireVm(context, call);
  return context.act(call, vm, async () => {
    await room.powerOn(vm);
    setDiskState(context, vm, 'Attached');
  });
}

export function powerOffVm(context: EmulatorContext, call: ArmCall, room: MachineRoom): Answer {
  const vm = requireVm(context, call);
  return context.act(call, vm, () => room.powerOff(vm, 'stopped'));
}

export function deallocateVm(context: EmulatorContext, call: ArmCall, room: MachineRoom): Answer {
  const vm = requireVm(context, call);
  return context.act(call, vm, async () => {
    await room.powerOff(vm, 'deallocated');
    setDiskState(context, vm, 'Reserved');
  });
}

export function bootDiagnostics(context: EmulatorContext, call: ArmCall): Answer {
  const vm = requireVm(context, call);
  if (field(vm.properties, 'diagnosticsProfile', 'bootDiagnostics', 'enabled') !== true)
    throw conflict(`Boot diagnostics is not enabled for VM ${vm.name}.`);
  const query = new URLSearchParams({ sr: 'b', sp: 'r', sig: String(vm.hidden.serialSecret) });
  return {
    status: 200,
    body: { serialConsoleLogBlobUri: `${context.url}/_serial/${vm.uid}?${query}` },
  };
}

function requireVm(context: EmulatorContext, call: ArmCall): Resource {
  const vm = context.resources.get(call.id);
  if (vm === undefined) throw notFound(call.id);
  return vm;
}

function requireSize(call: ArmCall): Size {
  const name = text(call.body, 'properties', 'hardwareProfile', 'vmSize');
  const size = sizes.find((one) => one.name.toLowerCase() === name?.toLowerCase());
  if (size !== undefined) return size;
  throw invalid('vmSize', `The value ${name} provided for the VM size is not valid.`);
}

function refuseOverQuota(
  context: EmulatorContext,
  asked: { location: string; size: Size; id: string },
): void {
  const used = context.resources
    .list({ type: VM })
    .filter(
      (vm) => vm.location === asked.location && vm.id.toLowerCase() !== asked.id.toLowerCase(),
    )
    .map((vm) => text(vm.properties, 'hardwareProfile', 'vmSize'))
    .reduce((sum, name) => sum + (sizes.find((size) => size.name === name)?.cores ?? 0), 0);
  const limit = context.settings.coresQuota;
  if (used + asked.size.cores <= limit) return;
  throw conflict(
    `Operation could not be completed as it results in exceeding approved Total Regional Cores quota. Additional details - Deployment Model: Resource Manager, Location: ${asked.location}, Current Limit: ${limit}, Current Usage: ${used}, Additional Required: ${asked.size.cores}, (Minimum) New Limit Required: ${used + asked.size.cores}.`,
  );
}

interface Place {
  location: string;
  zone: string | undefined;
  vm: string;
  size: Size;
}

function requireDisks(context: EmulatorContext, call: ArmCall, place: Place): Resource[] {
  const os = field(call.body, 'properties', 'storageProfile', 'osDisk');
  const data = list(call.body, 'properties', 'storageProfile', 'dataDisks');
  if (data.length > place.size.dataDisks)
    throw conflict(
      `The maximum number of data disks allowed to be attached to a VM of this size is ${place.size.dataDisks}.`,
    );
  const luns = data.map((one) => Number(field(one, 'lun')));
  if (new Set(luns).size !== luns.length)
    throw invalid('dataDisks.lun', 'Two data disks have the same LUN.');
  const disks = [os, ...data].map((one) => requireDisk(context, one, place));
  if (disks[0]?.properties.osType === undefined)
    throw invalid('osDisk', `Disk ${disks[0]?.id} has no OS type: it is no OS disk.`);
  const generation = disks[0].properties.hyperVGeneration === 'V2' ? 'V2' : 'V1';
  if ((place.size.generation ?? generation) !== generation)
    throw new ArmFailure(
      400,
      'BadRequest',
      `The selected VM size '${place.size.name}' cannot boot Hypervisor Generation '${generation.slice(1)}'. If this was a Create operation please check that the Hypervisor Generation of the Image matches the Hypervisor Generation of the selected VM Size.`,
    );
  return disks;
}

function requireDisk(context: EmulatorContext, one: unknown, place: Place): Resource {
  if (text(one, 'createOption') !== 'Attach')
    throw invalid('createOption', `createOption '${text(one, 'createOption')}' is not emulated.`);
  const id = text(one, 'managedDisk', 'id') ?? '';
  const disk = context.resources.get(id);
  if (disk === undefined) throw notFound(id);
  if (disk.properties.provisioningState !== 'Succeeded')
    throw conflict(`Disk ${disk.name} is in state ${disk.properties.provisioningState}.`);
  const owner = disk.managedBy;
  if (owner !== undefined && owner.toLowerCase() !== place.vm.toLowerCase())
    throw conflict(`Cannot attach disk '${disk.name}': it is already owned by VM '${owner}'.`);
  if (disk.properties.diskState === 'ActiveSAS')
    throw conflict(
      `Disk ${disk.name} can't be attached while it has an active shared access signature (state ActiveSAS).`,
    );
  if (disk.location !== place.location)
    throw invalid('managedDisk.id', `Disk ${id} is in ${disk.location}, not in ${place.location}.`);
  const zonal = disk.zones?.[0] !== undefined || place.zone !== undefined;
  if (zonal && disk.zones?.[0] !== place.zone && !disk.sku?.name.endsWith('_ZRS'))
    throw conflict(
      `Disk ${id} is in zone '${disk.zones?.[0] ?? ''}', the VM in zone '${place.zone ?? ''}'.`,
    );
  if (disk.sku?.name.startsWith('Premium') === true && !place.size.premium)
    throw invalid(
      'managedDisk.storageAccountType',
      `Requested operation cannot be performed because the VM size ${place.size.name} does not support the storage account type ${disk.sku.name} of disk '${disk.name}'.`,
    );
  return disk;
}

function requireNics(context: EmulatorContext, call: ArmCall, place: Place): Resource[] {
  const references = list(call.body, 'properties', 'networkProfile', 'networkInterfaces');
  if (references.length === 0) throw invalid('networkProfile', 'A VM must have an interface.');
  if (references.length > place.size.nics)
    throw conflict(
      `The number of network interfaces for VM exceeds the maximum of ${place.size.nics} allowed for size ${place.size.name}.`,
    );
  return references.map((reference) => {
    const id = text(reference, 'id') ?? '';
    const nic = context.resources.get(id);
    if (nic === undefined)
      throw new ArmFailure(
        400,
        'InvalidResourceReference',
        `Resource ${id} referenced by resource ${place.vm} was not found.`,
      );
    const owner = text(nic.properties, 'virtualMachine', 'id');
    if (owner !== undefined && owner.toLowerCase() !== place.vm.toLowerCase())
      throw new ArmFailure(
        400,
        'NicInUse',
        `Network Interface ${id} is used by existing resource ${owner}.`,
      );
    return nic;
  });
}

function attach(disk: Resource, vm: string): void {
  disk.managedBy = vm;
  disk.properties.diskState = 'Attached';
}

function setDiskState(context: EmulatorContext, vm: Resource, state: string): void {
  for (const disk of context.resources.list())
    if (disk.managedBy?.toLowerCase() === vm.id.toLowerCase()) disk.properties.diskState = state;
  context.resources.save();
}
