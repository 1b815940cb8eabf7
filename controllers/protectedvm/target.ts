/**
 * Whether a machine's target in Azure can take it: what exists, and what fits. Asked of Azure rarely, decided purely.
 */
import type { VmSize } from '../../platform/ports.ts';
import { type Check, firstObjection, type Objection } from './policies.ts';

const TIB = 1024 ** 4;
/** Azure's largest managed disk, without the VHD's footer; an OS disk may be 4 TiB, with an MBR 2 TiB are used of it. */
export const DISK_LIMITS = { dataBytes: 32 * TIB - 1024 ** 3, osBytes: 4 * TIB } as const;

/** What Azure says of a target; made by `observeTarget`. */
export interface TargetFacts {
  resourceGroup: string;
  resourceGroupExists: boolean;
  /** One for each network that a failover may use (production, test). */
  subnets: readonly { network: string; subnet: string; found: boolean; location?: string }[];
  location: string;
  size: string;
  /** Undefined when the location does not offer it. */
  sizeFacts: VmSize | undefined;
  nicCount: number;
  diskType: string;
}

export interface TargetInput {
  facts: TargetFacts;
  disks: readonly { name: string; sizeBytes: number }[];
}

export const targetChecks: readonly Check<TargetInput>[] = [
  ({ facts }) =>
    facts.resourceGroupExists
      ? undefined
      : {
          reason: 'ResourceGroupNotFound',
          message: `Resource group ${facts.resourceGroup} does not exist in the vault's subscription. Create it, or correct target.resourceGroup.`,
        },
  ({ facts }) => {
    const missing = facts.subnets.find((subnet) => !subnet.found);
    return missing === undefined
      ? undefined
      : {
          reason: 'SubnetNotFound',
          message: `Subnet ${missing.subnet} of network ${missing.network} does not exist. Create it, or correct target.nics.`,
        };
  },
  ({ facts }) => {
    const elsewhere = facts.subnets.find(
      (subnet) => subnet.location !== undefined && subnet.location !== facts.location,
    );
    return elsewhere === undefined
      ? undefined
      : {
          reason: 'NetworkInAnotherLocation',
          message: `Network ${elsewhere.network} is in ${elsewhere.location}, but the vault brings machines up in ${facts.location}.`,
        };
  },
  ({ facts }) =>
    facts.sizeFacts === undefined
      ? {
          reason: 'SizeNotFound',
          message: `VM size ${facts.size} is not offered in ${facts.location}. Choose one of "az vm list-sizes --location ${facts.location}".`,
        }
      : undefined,
  ({ facts, disks }) =>
    facts.sizeFacts !== undefined && disks.length - 1 > facts.sizeFacts.maxDataDisks
      ? {
          reason: 'TooManyDisks',
          message: `The machine has ${disks.length - 1} data disks, but size ${facts.size} takes ${facts.sizeFacts.maxDataDisks}. Choose a larger size.`,
        }
      : undefined,
  ({ facts }) =>
    facts.sizeFacts !== undefined && facts.nicCount > facts.sizeFacts.maxNics
      ? {
          reason: 'TooManyNics',
          message: `The target has ${facts.nicCount} network interfaces, but size ${facts.size} takes ${facts.sizeFacts.maxNics}.`,
        }
      : undefined,
  ({ facts }) =>
    facts.sizeFacts !== undefined &&
    facts.diskType.startsWith('Premium') &&
    !facts.sizeFacts.premiumDisks
      ? {
          reason: 'PremiumDisksNotSupported',
          message: `Size ${facts.size} takes no premium disks, but target.diskType is ${facts.diskType}.`,
        }
      : undefined,
  ({ disks }) => {
    const [first, ...rest] = disks;
    const tooLarge =
      first !== undefined && first.sizeBytes > DISK_LIMITS.osBytes
        ? { disk: first, limit: DISK_LIMITS.osBytes }
        : rest
            .filter((disk) => disk.sizeBytes > DISK_LIMITS.dataBytes)
            .map((disk) => ({ disk, limit: DISK_LIMITS.dataBytes }))[0];
    return tooLarge === undefined
      ? undefined
      : {
          reason: 'DiskTooLarge',
          message: `Disk ${tooLarge.disk.name} has ${tooLarge.disk.sizeBytes} bytes; Azure takes at most ${tooLarge.limit} for it.`,
        };
  },
];

export function decideTarget(input: TargetInput): Objection | undefined {
  return firstObjection(targetChecks, input);
}
