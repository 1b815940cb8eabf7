/** What the emulated regions offer. */
import { type Answer, type ArmCall, text } from './call.ts';
import type { EmulatorContext } from './context.ts';
import { ArmFailure } from './failure.ts';

export interface Size {
  name: string;
  cores: number;
  memoryGB: number;
  dataDisks: number;
  nics: number;
  premium: boolean;
  /** Both [V1,V2] unless one alone. */
  generation?: 'V1' | 'V2';
}

export const sizes: readonly Size[] = [
  {
    ...{ name: 'Standard_A1_v2', cores: 1, memoryGB: 2, dataDisks: 2, nics: 2, premium: false },
    generation: 'V1',
  },
  { name: 'Standard_B1s', cores: 1, memoryGB: 1, dataDisks: 2, nics: 2, premium: true },
  { name: 'Standard_B2s', cores: 2, memoryGB: 4, dataDisks: 4, nics: 3, premium: true },
  { name: 'Standard_D2s_v5', cores: 2, memoryGB: 8, dataDisks: 4, nics: 2, premium: true },
  { name: 'Standard_D4s_v5', cores: 4, memoryGB: 16, dataDisks: 8, nics: 2, premium: true },
  {
    ...{ name: 'Standard_D2s_v6', cores: 2, memoryGB: 8, dataDisks: 4, nics: 2, premium: true },
    generation: 'V2',
  },
  { name: 'Standard_E64s_v5', cores: 64, memoryGB: 512, dataDisks: 32, nics: 8, premium: true },
];

export function listSkus(context: EmulatorContext, call: ArmCall): Answer {
  const wanted = /location eq '([^']*)'/.exec(call.query.get('$filter') ?? '')?.[1]?.toLowerCase();
  const value = context.locations
    .filter((location) => wanted === undefined || location.name === wanted)
    .flatMap((location) => [
      ...sizes.map((size) => sku(size, location)),
      // A size that the subscription may not use, and things that are no sizes: a client must sort them out.
      { ...sku(withheld, location), restrictions: [restriction(location.name)] },
      { resourceType: 'disks', name: 'Premium_LRS', locations: [location.name] },
    ]);
  return { status: 200, body: { value } };
}

const withheld: Size = {
  name: 'Standard_M128s',
  cores: 128,
  memoryGB: 2048,
  dataDisks: 64,
  nics: 8,
  premium: true,
};

function restriction(location: string): unknown {
  return {
    type: 'Location',
    values: [location],
    restrictionInfo: { locations: [location] },
    reasonCode: 'NotAvailableForSubscription',
  };
}

function sku(size: Size, location: { name: string; zones: string[] }) {
  const capabilities = {
    vCPUs: size.cores,
    MemoryGB: size.memoryGB,
    MaxDataDiskCount: size.dataDisks,
    MaxNetworkInterfaces: size.nics,
    PremiumIO: size.premium ? 'True' : 'False',
    HyperVGenerations: size.generation ?? 'V1,V2',
  };
  return {
    resourceType: 'virtualMachines',
    name: size.name,
    tier: 'Standard',
    size: size.name.replace(/^Standard_/, ''),
    locations: [location.name],
    locationInfo: [{ location: location.name, zones: location.zones, zoneDetails: [] }],
    capabilities: Object.entries(capabilities).map(([name, value]) => ({
      name,
      value: String(value),
    })),
    restrictions: [] as unknown[],
  };
}

export function listVmSizes(_context: EmulatorContext, _call: ArmCall): Answer {
  return {
    status: 200,
    body: {
      value: sizes.map((size) => ({
        name: size.name,
        numberOfCores: size.cores,
        memoryInMB: size.memoryGB * 1024,
        maxDataDiskCount: size.dataDisks,
      })),
    },
  };
}

export function listLocations(context: EmulatorContext, _call: ArmCall): Answer {
  const value = context.locations.map(({ name }) => ({
    id: `/subscriptions/${context.subscriptionId}/locations/${name}`,
    name,
    displayName: name,
    type: 'Region',
  }));
  return { status: 200, body: { value } };
}

// ----------------------------------------------------------------------------------------------------- resource groups

export function seedGroup(context: EmulatorContext, name: string, location: string): void {
  context.resources.set({
    id: groupId(context, name),
    name,
    type: 'Microsoft.Resources/resourceGroups',
    location,
    tags: {},
    uid: name,
    properties: { provisioningState: 'Succeeded' },
    hidden: {},
  });
}

export function groupExists(context: EmulatorContext, name: string): boolean {
  return context.resources.get(groupId(context, name)) !== undefined;
}

export function requireGroup(context: EmulatorContext, name: string): void {
  if (groupExists(context, name)) return;
  throw new ArmFailure(
    404,
    'ResourceGroupNotFound',
    `Resource group '${name}' could not be found.`,
  );
}

export function putGroup(context: EmulatorContext, call: ArmCall): Answer {
  const created = !groupExists(context, call.name);
  if (created)
    seedGroup(context, call.name, context.requireLocation(text(call.body, 'location')).name);
  return {
    status: created ? 201 : 200,
    body: context.resources.get(groupId(context, call.name)),
    created,
  };
}

export function getGroup(context: EmulatorContext, call: ArmCall): Answer {
  requireGroup(context, call.name);
  return { status: 200, body: context.resources.get(groupId(context, call.name)) };
}

function groupId(context: EmulatorContext, name: string): string {
  return `/subscriptions/${context.subscriptionId}/resourceGroups/${name}`;
}
