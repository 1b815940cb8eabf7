/** Managed disks and snapshots. */
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { promisify } from 'node:util';
import { type Answer, type ArmCall, field, list, text } from './call.ts';
import type { EmulatorContext } from './context.ts';
import { conflict, invalid, notFound } from './failure.ts';
import type { Resource } from './resources.ts';
import { importBody, openImportSource } from './vhdImport.ts';

const GIB = 2 ** 30;
const LONGEST_ACCESS_SECONDS = 60 * 86_400;
const diskTypes =
  /^(Standard_LRS|StandardSSD_LRS|Premium_LRS|StandardSSD_ZRS|Premium_ZRS|PremiumV2_LRS|UltraSSD_LRS)$/;
const run = promisify(execFile);

export async function putDisk(context: EmulatorContext, call: ArmCall): Promise<Answer> {
  const option = text(call.body, 'properties', 'creationData', 'createOption');
  if (option === 'Import') return putImportedDisk(context, call);
  if (option === 'Copy') return putCopy(context, call, 'Microsoft.Compute/snapshots');
  throw invalid(
    'disk.creationData.createOption',
    `createOption '${option}' is not emulated: Import and Copy are.`,
  );
}

export function putSnapshot(context: EmulatorContext, call: ArmCall): Answer {
  const option = text(call.body, 'properties', 'creationData', 'createOption');
  if (option !== 'Copy')
    throw invalid(
      'snapshot.creationData.createOption',
      `createOption '${option}' is not emulated.`,
    );
  return putCopy(context, call, 'Microsoft.Compute/disks');
}

async function putImportedDisk(context: EmulatorContext, call: ArmCall): Promise<Answer> {
  const common = commonProperties(context, call);
  // Asked before the decision in `put`, which must not be interrupted by a second PUT; not asked again for what exists.
  const source =
    context.resources.get(call.id)?.properties.provisioningState === undefined
      ? await openImportSource(context.storageAccounts, {
          sourceUri: text(call.body, 'properties', 'creationData', 'sourceUri') ?? '',
          storageAccountId: text(call.body, 'properties', 'creationData', 'storageAccountId'),
          location: common.location,
        })
      : undefined;
  return context.put(call, {
    prepare: () => ({
      ...common,
      properties: { ...common.properties, ...sizeProperties(source?.sizeBytes ?? 0) },
      hidden: { footer: source?.footer.toString('base64') },
    }),
    work: async (disk) => {
      const opened = source ?? (await reopened(context, call, disk));
      await importBody(opened, context.diskFile(disk));
    },
  });
}

/** A PUT of a disk whose first import failed: everything anew. */
async function reopened(
  context: EmulatorContext,
  call: ArmCall,
  disk: Resource,
): ReturnType<typeof openImportSource> {
  const source = await openImportSource(context.storageAccounts, {
    sourceUri: text(call.body, 'properties', 'creationData', 'sourceUri') ?? '',
    storageAccountId: text(call.body, 'properties', 'creationData', 'storageAccountId'),
    location: disk.location,
  });
  Object.assign(disk.properties, sizeProperties(source.sizeBytes));
  disk.hidden.footer = source.footer.toString('base64');
  return source;
}

function putCopy(context: EmulatorContext, call: ArmCall, from: string): Answer {
  const common = commonProperties(context, call);
  const sourceId = text(call.body, 'properties', 'creationData', 'sourceResourceId') ?? '';
  const source = context.resources.get(sourceId);
  if (source?.type !== from) throw notFound(sourceId);
  if (source.location !== common.location)
    throw invalid('creationData.sourceResourceId', 'Source and target must be in one region.');
  return context.put(call, {
    prepare: () => ({
      ...common,
      properties: {
        ...common.properties,
        ...sizeProperties(Number(source.properties.diskSizeBytes)),
      },
      hidden: { footer: source.hidden.footer },
    }),
    work: async (copy) => {
      await run('cp', ['--sparse=always', context.diskFile(source), context.diskFile(copy)]);
    },
  });
}

function commonProperties(
  context: EmulatorContext,
  call: ArmCall,
): Pick<Resource, 'location' | 'properties'> & Partial<Resource> {
  const location = context.requireLocation(text(call.body, 'location'));
  const zones = list(call.body, 'zones').map(String);
  const unknown = zones.find((zone) => !location.zones.includes(zone));
  if (unknown !== undefined)
    throw invalid(
      'zones',
      `Availability zone '${unknown}' is not supported in '${location.name}'.`,
    );
  const sku = text(call.body, 'sku', 'name') ?? 'Standard_LRS';
  if (!diskTypes.test(sku)) throw invalid('sku.name', `The value '${sku}' is no type of disk.`);
  if (sku.endsWith('_ZRS') && zones.length > 0)
    throw conflict(`A disk with sku '${sku}' cannot be created in an availability zone.`);
  const optional = (name: string) => {
    const value = text(call.body, 'properties', name);
    return value === undefined ? {} : { [name]: value };
  };
  return {
    location: location.name,
    ...(zones.length === 0 ? {} : { zones }),
    sku: { name: sku },
    properties: {
      ...optional('osType'),
      ...optional('hyperVGeneration'),
      creationData: field(call.body, 'properties', 'creationData'),
      diskState: 'Unattached',
      timeCreated: new Date().toISOString(),
      provisioningState: 'Creating',
    },
  };
}

function sizeProperties(sizeBytes: number): { diskSizeBytes: number; diskSizeGB: number } {
  return { diskSizeBytes: sizeBytes, diskSizeGB: Math.ceil(sizeBytes / GIB) };
}

export function deleteDisk(context: EmulatorContext, call: ArmCall): Answer {
  return context.delete(call, {
    refuse: (disk) => {
      if (disk.managedBy !== undefined)
        throw conflict(
          `Disk ${disk.name} is attached to VM ${disk.managedBy}. Detach the disk from the VM before deleting it.`,
        );
      if (disk.properties.diskState === 'ActiveSAS')
        throw conflict(
          `Disk ${disk.name} can't be deleted while it has an active shared access signature. Revoke it first.`,
        );
    },
    work: (disk) => rm(context.diskFile(disk), { force: true }),
  });
}

export function beginGetAccess(context: EmulatorContext, call: ArmCall): Answer {
  const disk = settledDisk(context, call);
  const seconds = Number(field(call.body, 'durationInSeconds'));
  if (!(seconds > 0 && seconds <= LONGEST_ACCESS_SECONDS))
    throw invalid('durationInSeconds', `'${seconds}' is no allowed duration.`);
  if (text(call.body, 'access') !== 'Read')
    throw invalid('access', 'Only access Read is emulated.');
  if (disk.managedBy !== undefined)
    throw conflict(
      `Disk ${disk.name} is attached to VM ${disk.managedBy}: no access can be granted.`,
    );
  return context.act(call, disk, async () => {
    disk.properties.diskState = 'ActiveSAS';
    disk.hidden.access ??= randomBytes(24).toString('base64url');
    disk.hidden.accessUntil = Date.now() + seconds * 1000;
    context.resources.save();
    const expiry = new Date(Date.now() + seconds * 1000).toISOString().slice(0, 19);
    const query = new URLSearchParams({
      sv: '2018-03-28',
      sr: 'b',
      se: `${expiry}Z`,
      sp: 'r',
      sig: String(disk.hidden.access),
    });
    return { accessSAS: `${context.url}/_disk/${disk.uid}/abcd?${query}` };
  });
}

export function endGetAccess(context: EmulatorContext, call: ArmCall): Answer {
  const disk = settledDisk(context, call);
  return context.act(call, disk, async () => {
    if (disk.properties.diskState === 'ActiveSAS') disk.properties.diskState = 'Unattached';
    delete disk.hidden.access;
    delete disk.hidden.accessUntil;
    context.resources.save();
  });
}

function settledDisk(context: EmulatorContext, call: ArmCall): Resource {
  // The action is the last segment of the path, the disk is before it.
  const disk = context.resources.get(call.id);
  if (disk === undefined) throw notFound(call.id);
  if (disk.properties.provisioningState !== 'Succeeded')
    throw conflict(`Disk ${disk.name} is in state ${disk.properties.provisioningState}.`);
  return disk;
}
