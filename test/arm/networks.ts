/** Virtual networks (seeded, read only) and network interfaces. */
import { randomBytes } from 'node:crypto';
import { type Answer, type ArmCall, field, list, text } from './call.ts';
import type { EmulatorContext } from './context.ts';
import { ArmFailure } from './failure.ts';
import type { Resource } from './resources.ts';

const NIC = 'Microsoft.Network/networkInterfaces';
/** Azure keeps the first four addresses and the last of every subnet. */
const FIRST_FREE = 4;

export interface SeedNetwork {
  resourceGroup: string;
  name: string;
  location: string;
  /** CIDR. */
  prefix: string;
  subnets: { name: string; prefix: string }[];
}

export function seedNetwork(context: EmulatorContext, network: SeedNetwork): Resource {
  const id = `/subscriptions/${context.subscriptionId}/resourceGroups/${network.resourceGroup}/providers/Microsoft.Network/virtualNetworks/${network.name}`;
  const resource: Resource = {
    id,
    name: network.name,
    type: 'Microsoft.Network/virtualNetworks',
    location: network.location,
    tags: {},
    uid: randomBytes(8).toString('hex'),
    properties: {
      provisioningState: 'Succeeded',
      addressSpace: { addressPrefixes: [network.prefix] },
      subnets: network.subnets.map((subnet) => ({
        id: `${id}/subnets/${subnet.name}`,
        name: subnet.name,
        properties: { provisioningState: 'Succeeded', addressPrefix: subnet.prefix },
      })),
    },
    hidden: {},
  };
  context.resources.set(resource);
  return resource;
}

export function putNic(context: EmulatorContext, call: ArmCall): Answer {
  return context.put(call, {
    prepare: () => {
      const location = context.requireLocation(text(call.body, 'location')).name;
      const configurations = list(call.body, 'properties', 'ipConfigurations');
      if (configurations.length === 0)
        throw new ArmFailure(
          400,
          'NetworkInterfaceMustHaveAtLeastOneIpConfiguration',
          `Network interface ${call.id} must have an IP configuration.`,
        );
      const ipConfigurations: unknown[] = [];
      for (const configuration of configurations) {
        const name = text(configuration, 'name') ?? '';
        const subnetId = text(configuration, 'properties', 'subnet', 'id') ?? '';
        const subnet = requireSubnet(context, { nic: call.id, subnetId, location });
        const address = chooseAddress(context, {
          subnetId: subnet.id,
          prefix: subnet.prefix,
          wanted: text(configuration, 'properties', 'privateIPAddress'),
        });
        const given = field(configuration, 'properties') as Record<string, unknown>;
        ipConfigurations.push({
          id: `${call.id}/ipConfigurations/${name}`,
          name,
          properties: { ...given, privateIPAddress: address, provisioningState: 'Succeeded' },
        });
      }
      return {
        location,
        properties: {
          provisioningState: 'Creating',
          macAddress: `60-45-BD-${randomBytes(3)
            .toString('hex')
            .toUpperCase()
            .replaceAll(/(..)(?=.)/g, '$1-')}`,
          ipConfigurations,
        },
      };
    },
    work: async () => undefined,
  });
}

export function deleteNic(context: EmulatorContext, call: ArmCall): Answer {
  return context.delete(call, {
    refuse: (nic) => {
      const vm = text(nic.properties, 'virtualMachine', 'id');
      if (vm !== undefined)
        throw new ArmFailure(
          400,
          'NicInUse',
          `Network Interface ${nic.id} is used by existing resource ${vm}. In order to delete the network interface, it must be dissociated from the resource.`,
        );
    },
    work: async () => undefined,
  });
}

export function getSubnet(context: EmulatorContext, call: ArmCall): Answer {
  const [network, subnetName] = call.id.split('/subnets/');
  const subnet = list(context.resources.get(network ?? '')?.properties, 'subnets').find(
    (one) => text(one, 'name')?.toLowerCase() === subnetName?.toLowerCase(),
  );
  if (subnet === undefined) throw new ArmFailure(404, 'NotFound', `Resource ${call.id} not found.`);
  return { status: 200, body: subnet };
}

function requireSubnet(
  context: EmulatorContext,
  asked: { nic: string; subnetId: string; location: string },
): { id: string; prefix: string } {
  const network = context.resources.get(asked.subnetId.split('/').slice(0, 9).join('/'));
  const subnet = list(network?.properties, 'subnets').find(
    (one) => text(one, 'id')?.toLowerCase() === asked.subnetId.toLowerCase(),
  );
  const prefix = text(subnet, 'properties', 'addressPrefix');
  if (network === undefined || prefix === undefined)
    throw new ArmFailure(
      400,
      'InvalidResourceReference',
      `Resource ${asked.subnetId} referenced by resource ${asked.nic} was not found. Please make sure that the referenced resource exists, and that both resources are in the same region.`,
    );
  if (network.location !== asked.location)
    throw new ArmFailure(
      400,
      'InvalidResourceReference',
      `Resource ${asked.subnetId} referenced by resource ${asked.nic} is in region ${network.location}, not in ${asked.location}.`,
    );
  return { id: text(subnet, 'id') ?? '', prefix };
}

function chooseAddress(
  context: EmulatorContext,
  asked: { subnetId: string; prefix: string; wanted: string | undefined },
): string {
  const [base = '', bits = '24'] = asked.prefix.split('/');
  const first = toNumber(base);
  const size = 2 ** (32 - Number(bits));
  const used = usedAddresses(context, asked.subnetId);
  if (asked.wanted !== undefined) {
    const offset = toNumber(asked.wanted) - first;
    if (!(offset >= FIRST_FREE && offset < size - 1))
      throw new ArmFailure(
        400,
        'PrivateIPAddressNotInSubnet',
        `Private static IP address ${asked.wanted} does not belong to the range of subnet prefix ${asked.prefix}, or is reserved.`,
      );
    if (used.has(asked.wanted))
      throw new ArmFailure(
        400,
        'PrivateIPAddressInUse',
        `IP address ${asked.wanted} is already allocated to another resource.`,
      );
    return asked.wanted;
  }
  for (let offset = FIRST_FREE; offset < size - 1; offset++)
    if (!used.has(toText(first + offset))) return toText(first + offset);
  throw new ArmFailure(
    400,
    'SubnetIsFull',
    `Subnet ${asked.subnetId} with address prefix ${asked.prefix} does not have enough capacity for 1 IP addresses.`,
  );
}

function usedAddresses(context: EmulatorContext, subnetId: string): Set<string | undefined> {
  return new Set(
    context.resources
      .list({ type: NIC })
      .flatMap((nic) => list(nic.properties, 'ipConfigurations'))
      .filter(
        (one) => text(one, 'properties', 'subnet', 'id')?.toLowerCase() === subnetId.toLowerCase(),
      )
      .map((one) => text(one, 'properties', 'privateIPAddress')),
  );
}

function toNumber(address: string): number {
  return address.split('.').reduce((sum, part) => sum * 256 + Number(part), 0);
}

function toText(address: number): string {
  return [24, 16, 8, 0].map((shift) => Math.floor(address / 2 ** shift) % 256).join('.');
}
