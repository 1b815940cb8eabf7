import { ComputeError } from '../../platform/computeErrors.ts';
import type {
  AzureResourceRef,
  Compute,
  DiskImageReader,
  ManagedDisk,
  NetworkInterface,
  PageBlobStore,
  PageRange,
  VirtualMachine,
  VmSize,
} from '../../platform/ports.ts';

interface Disk extends ManagedDisk {
  body: Uint8Array;
}

/**
 * Azure Resource Manager in memory, as far as recovery uses it: what Azure refuses, this refuses. `creates` counts by kind and name,
 * also of resources that are gone again.
 */
export class MemoryCompute implements Compute, DiskImageReader {
  readonly creates: string[] = [];
  readonly disks = new Map<string, Disk>();
  readonly nics = new Map<string, NetworkInterface>();
  readonly vms = new Map<string, VirtualMachine & { diskIds: string[]; nicIds: string[] }>();
  readonly #pages: PageBlobStore;
  /** What a machine says on its serial port once it runs. */
  serial = 'booting\nFARSHORE-RECOVERED record=1 intact=yes\n';
  sizes: VmSize[] = [
    {
      name: 'Standard_B2s',
      cores: 2,
      memoryBytes: 2 ** 32,
      maxDataDisks: 4,
      maxNics: 2,
      premiumDisks: true,
      generations: ['V1', 'V2'],
      zones: ['1', '2', '3'],
    },
  ];
  location = 'westeurope';
  resourceGroups = new Set(['recovery']);
  subnets = new Set(['production/default', 'test/default']);

  constructor(deps: { pages: PageBlobStore }) {
    this.#pages = deps.pages;
  }

  async resourceGroupExists(name: string): Promise<boolean> {
    return this.resourceGroups.has(name);
  }

  async subnet(options: { network: string; subnet: string }) {
    const name = `${options.network}/${options.subnet}`;
    return this.subnets.has(name) ? { id: name, location: this.location } : undefined;
  }

  async vmSizes(): Promise<VmSize[]> {
    return this.sizes;
  }

  async disk(ref: AzureResourceRef): Promise<ManagedDisk | undefined> {
    return this.disks.get(ref.name);
  }

  async importDisk(
    ref: AzureResourceRef,
    options: { sourceUrl: string; tags: Record<string, string> },
  ): Promise<ManagedDisk> {
    const existing = this.disks.get(ref.name);
    if (existing !== undefined) return existing;
    const key = options.sourceUrl.replace(this.#pages.url(''), '');
    const info = await this.#pages.info(key);
    if (info === undefined) throw refused('InvalidRequest', `the blob ${key} does not exist`);
    const bytes = await this.#pages.read(key, { offset: 0, length: info.size });
    if (new TextDecoder().decode(bytes.subarray(-512, -504)) !== 'conectix')
      throw refused('InvalidRequest', 'the blob is no fixed VHD');
    const body = bytes.slice(0, -512);
    const disk: Disk = {
      id: `disks/${ref.name}`,
      state: 'Unattached',
      provisioning: 'Succeeded',
      sizeBytes: body.length,
      tags: options.tags,
      body,
    };
    this.creates.push(`disk ${ref.name}`);
    this.disks.set(ref.name, disk);
    return disk;
  }

  async grantDiskRead(ref: AzureResourceRef): Promise<{ url: string }> {
    const disk = this.#require(this.disks.get(ref.name), ref);
    if (disk.state === 'Attached') throw refused('Conflict', `disk ${ref.name} is attached`);
    disk.state = 'ActiveSAS';
    return { url: ref.name };
  }

  async revokeDiskRead(ref: AzureResourceRef): Promise<void> {
    const disk = this.#require(this.disks.get(ref.name), ref);
    if (disk.state === 'ActiveSAS') disk.state = 'Unattached';
  }

  async removeDisk(ref: AzureResourceRef): Promise<void> {
    const disk = this.disks.get(ref.name);
    if (disk !== undefined && disk.state !== 'Unattached')
      throw refused('Conflict', `disk ${ref.name} is ${disk.state}`);
    this.disks.delete(ref.name);
  }

  async nic(ref: AzureResourceRef): Promise<NetworkInterface | undefined> {
    return this.nics.get(ref.name);
  }

  async createNic(
    ref: AzureResourceRef,
    options: { privateIp?: string; tags: Record<string, string> },
  ): Promise<NetworkInterface> {
    const existing = this.nics.get(ref.name);
    if (existing !== undefined) return existing;
    this.creates.push(`nic ${ref.name}`);
    const nic: NetworkInterface = {
      id: `nics/${ref.name}`,
      provisioning: 'Succeeded',
      privateIp: options.privateIp ?? '10.0.0.4',
      tags: options.tags,
    };
    this.nics.set(ref.name, nic);
    return nic;
  }

  async removeNic(ref: AzureResourceRef): Promise<void> {
    for (const vm of this.vms.values())
      if (vm.nicIds.includes(`nics/${ref.name}`))
        throw refused('Conflict', `nic ${ref.name} is in use`);
    this.nics.delete(ref.name);
  }

  async vm(ref: AzureResourceRef): Promise<VirtualMachine | undefined> {
    return this.vms.get(ref.name);
  }

  async createVm(
    ref: AzureResourceRef,
    options: {
      osDiskId: string;
      dataDisks: readonly { id: string }[];
      nicIds: readonly string[];
      tags: Record<string, string>;
    },
  ): Promise<VirtualMachine> {
    const existing = this.vms.get(ref.name);
    if (existing !== undefined) return existing;
    const diskIds = [options.osDiskId, ...options.dataDisks.map((disk) => disk.id)];
    for (const id of diskIds) {
      const disk = this.#require(this.disks.get(id.replace('disks/', '')), { name: id });
      if (disk.state !== 'Unattached') throw refused('Conflict', `disk ${id} is ${disk.state}`);
      disk.state = 'Attached';
    }
    this.creates.push(`vm ${ref.name}`);
    const vm = {
      id: `vms/${ref.name}`,
      provisioning: 'Succeeded' as const,
      power: 'running' as const,
      tags: options.tags,
      diskIds,
      nicIds: [...options.nicIds],
    };
    this.vms.set(ref.name, vm);
    return vm;
  }

  async removeVm(ref: AzureResourceRef): Promise<void> {
    const vm = this.vms.get(ref.name);
    for (const id of vm?.diskIds ?? []) {
      const disk = this.disks.get(id.replace('disks/', ''));
      if (disk !== undefined) disk.state = 'Unattached';
    }
    this.vms.delete(ref.name);
  }

  async serialLog(): Promise<string> {
    return this.serial;
  }

  async size(url: string): Promise<number> {
    return this.#require(this.disks.get(url), { name: url }).body.length;
  }

  async *ranges(url: string): AsyncIterable<PageRange> {
    yield { offset: 0, length: await this.size(url) };
  }

  async read(url: string, range: PageRange): Promise<Uint8Array> {
    const { body } = this.#require(this.disks.get(url), { name: url });
    return body.subarray(range.offset, range.offset + range.length);
  }

  #require<T>(found: T | undefined, ref: { name: string }): T {
    if (found === undefined) throw refused('NotFound', `${ref.name} does not exist`);
    return found;
  }
}

function refused(code: 'InvalidRequest' | 'Conflict' | 'NotFound', message: string): ComputeError {
  return new ComputeError(code, message);
}
