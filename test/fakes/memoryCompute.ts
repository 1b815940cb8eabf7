import { ComputeError, type ComputeErrorCode } from '../../platform/computeErrors.ts';
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
import { StoreError } from '../../platform/storeErrors.ts';

const MIB = 1 << 20;
const FOOTER = 512;
const IDENTITY_TAG = 'farshore-failover';
/** Azure keeps the first four addresses of a subnet; this one is a /24 of which all subnets have their own. */
const FIRST_ADDRESS = 4;
const LAST_ADDRESS = 254;

interface Disk extends ManagedDisk {
  /** What it holds, and the footer that it came with. */
  body: Uint8Array;
  footer: Uint8Array;
  /** Of the URL by which it may be read now. */
  grant?: number | undefined;
}

interface Nic extends NetworkInterface {
  subnetId: string;
}

interface Machine extends VirtualMachine {
  diskIds: string[];
  nicIds: string[];
}

type Kind = 'disk' | 'nic' | 'vm';

/**
 * Azure Resource Manager in memory, as far as recovery uses it: what Azure refuses, this refuses. Resources are kept under their ids,
 * in lower case, as Azure compares them.
 *
 * `creates` says what was made, also of what is gone again. It does not count calls that answered what was there: the port says that a
 * create may be called again, and recovery does so in every step that is run a second time. So one that stands there twice was removed
 * and made anew, and what was made under a second name stands there beside the first.
 */
export class MemoryCompute implements Compute, DiskImageReader {
  readonly creates: string[] = [];
  readonly disks = new Map<string, Disk>();
  readonly nics = new Map<string, Nic>();
  readonly vms = new Map<string, Machine>();
  readonly #pages: PageBlobStore;
  #grants = 0;
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
  /** In each of them. */
  subnets = new Set(['production/default', 'test/default']);

  constructor(deps: { pages: PageBlobStore }) {
    this.#pages = deps.pages;
  }

  async resourceGroupExists(name: string): Promise<boolean> {
    return this.resourceGroups.has(name);
  }

  async subnet(options: { resourceGroup: string; network: string; subnet: string }) {
    const name = `${options.network}/${options.subnet}`;
    if (!this.resourceGroups.has(options.resourceGroup) || !this.subnets.has(name))
      return undefined;
    return { id: `${options.resourceGroup}/${name}`, location: this.location };
  }

  async vmSizes(location: string): Promise<VmSize[]> {
    return location === this.location ? this.sizes : [];
  }

  // -------------------------------------------------------------------------------------------------------------- disks

  async disk(ref: AzureResourceRef): Promise<ManagedDisk | undefined> {
    const disk = this.disks.get(idOf('disk', ref));
    return disk && viewOfDisk(disk);
  }

  async importDisk(
    ref: AzureResourceRef,
    options: { location: string; sourceUrl: string; tags: Record<string, string> },
  ): Promise<ManagedDisk> {
    const made = this.#alreadyMade('disk', this.disks, ref, options.tags);
    if (made !== undefined) return viewOfDisk(made);
    if (options.location !== this.location)
      throw refused('InvalidRequest', `disk ${ref.name}: its blob is in ${this.location}`);
    const vhd = await this.#readVhd(ref, options.sourceUrl);
    // Another call may have made it meanwhile.
    const meanwhile = this.#alreadyMade('disk', this.disks, ref, options.tags);
    if (meanwhile !== undefined) return viewOfDisk(meanwhile);
    const disk: Disk = {
      id: idOf('disk', ref),
      state: 'Unattached',
      provisioning: 'Succeeded',
      sizeBytes: vhd.length - FOOTER,
      tags: { ...options.tags },
      body: vhd.subarray(0, -FOOTER),
      footer: vhd.subarray(-FOOTER),
    };
    this.creates.push(`disk ${ref.name}`);
    this.disks.set(disk.id, disk);
    return viewOfDisk(disk);
  }

  async #readVhd(ref: AzureResourceRef, url: string): Promise<Uint8Array> {
    const refuse = (problem: string) => refused('InvalidRequest', `disk ${ref.name}: ${problem}`);
    const account = this.#pages.url('');
    if (!url.startsWith(account)) throw refuse(`${url} is in no account that can be reached`);
    if (new URL(url).searchParams.has('snapshot')) throw refuse('a snapshot can not be imported');
    const key = url.slice(account.length);
    const info = await this.#pages.info(key);
    if (info === undefined) throw refused('NotFound', `disk ${ref.name}: no blob ${key}`);
    if (info.size <= FOOTER || (info.size - FOOTER) % MIB !== 0)
      throw refuse(`${info.size} bytes are no whole number of MiB and a footer`);
    const vhd = await this.#pages.read(key, { offset: 0, length: info.size });
    if (new TextDecoder().decode(vhd.subarray(-FOOTER, 8 - FOOTER)) !== 'conectix')
      throw refuse('the blob is no fixed VHD');
    return vhd;
  }

  async grantDiskRead(ref: AzureResourceRef): Promise<{ url: string }> {
    const disk = this.#require('disk', this.disks, idOf('disk', ref));
    if (disk.state === 'Attached') throw refused('Conflict', `disk ${ref.name} is attached`);
    disk.state = 'ActiveSAS';
    disk.grant ??= ++this.#grants;
    return { url: `${disk.id}?grant=${disk.grant}` };
  }

  async revokeDiskRead(ref: AzureResourceRef): Promise<void> {
    const disk = this.#require('disk', this.disks, idOf('disk', ref));
    disk.grant = undefined;
    if (disk.state === 'ActiveSAS') disk.state = 'Unattached';
  }

  async removeDisk(ref: AzureResourceRef): Promise<void> {
    const id = idOf('disk', ref);
    const disk = this.disks.get(id);
    if (disk !== undefined && disk.state !== 'Unattached')
      throw refused('Conflict', `disk ${ref.name} is ${disk.state}`);
    this.disks.delete(id);
  }

  // ------------------------------------------------------------------------------------------------------------- networks

  async nic(ref: AzureResourceRef): Promise<NetworkInterface | undefined> {
    const nic = this.nics.get(idOf('nic', ref));
    return nic && viewOfNic(nic);
  }

  async createNic(
    ref: AzureResourceRef,
    options: { subnetId: string; privateIp?: string; tags: Record<string, string> },
  ): Promise<NetworkInterface> {
    const made = this.#alreadyMade('nic', this.nics, ref, options.tags);
    if (made !== undefined) return viewOfNic(made);
    const [group = '', ...subnet] = options.subnetId.split('/');
    if (!this.resourceGroups.has(group) || !this.subnets.has(subnet.join('/')))
      throw refused('NotFound', `nic ${ref.name}: there is no subnet ${options.subnetId}`);
    const nic: Nic = {
      id: idOf('nic', ref),
      provisioning: 'Succeeded',
      privateIp: this.#address(ref, options),
      tags: { ...options.tags },
      subnetId: options.subnetId,
    };
    this.creates.push(`nic ${ref.name}`);
    this.nics.set(nic.id, nic);
    return viewOfNic(nic);
  }

  #address(ref: AzureResourceRef, options: { subnetId: string; privateIp?: string }): string {
    const used = [...this.nics.values()]
      .filter((nic) => nic.subnetId === options.subnetId)
      .map((nic) => nic.privateIp);
    const { privateIp } = options;
    if (privateIp !== undefined && used.includes(privateIp))
      throw refused('Conflict', `nic ${ref.name}: ${privateIp} is taken`);
    if (privateIp !== undefined) return privateIp;
    for (let last = FIRST_ADDRESS; last <= LAST_ADDRESS; last++)
      if (!used.includes(`10.0.0.${last}`)) return `10.0.0.${last}`;
    throw refused('QuotaExceeded', `nic ${ref.name}: subnet ${options.subnetId} is full`);
  }

  async removeNic(ref: AzureResourceRef): Promise<void> {
    const id = idOf('nic', ref);
    if (this.#machineWith(id) !== undefined) throw refused('Conflict', `nic ${ref.name} is in use`);
    this.nics.delete(id);
  }

  // ------------------------------------------------------------------------------------------------------------- machines

  async vm(ref: AzureResourceRef): Promise<VirtualMachine | undefined> {
    const vm = this.vms.get(idOf('vm', ref));
    return vm && viewOfVm(vm);
  }

  async createVm(
    ref: AzureResourceRef,
    options: {
      size: string;
      osDiskId: string;
      dataDisks: readonly { id: string }[];
      nicIds: readonly string[];
      tags: Record<string, string>;
    },
  ): Promise<VirtualMachine> {
    const made = this.#alreadyMade('vm', this.vms, ref, options.tags);
    if (made !== undefined) return viewOfVm(made);
    if (!this.sizes.some((size) => size.name === options.size))
      throw refused('InvalidRequest', `vm ${ref.name}: there is no size ${options.size}`);
    if (options.nicIds.length === 0)
      throw refused('InvalidRequest', `vm ${ref.name} has no network interface`);
    const disks = [options.osDiskId, ...options.dataDisks.map((disk) => disk.id)].map((id) =>
      this.#require('disk', this.disks, id),
    );
    for (const { id, state } of disks)
      if (state !== 'Unattached') throw refused('Conflict', `disk ${id} is ${state}`);
    const nics = options.nicIds.map((id) => this.#require('nic', this.nics, id));
    for (const { id } of nics)
      if (this.#machineWith(id) !== undefined) throw refused('Conflict', `nic ${id} is in use`);
    for (const disk of disks) disk.state = 'Attached';
    const vm: Machine = {
      id: idOf('vm', ref),
      provisioning: 'Succeeded',
      power: 'running',
      tags: { ...options.tags },
      diskIds: disks.map((disk) => disk.id),
      nicIds: nics.map((nic) => nic.id),
    };
    this.creates.push(`vm ${ref.name}`);
    this.vms.set(vm.id, vm);
    return viewOfVm(vm);
  }

  async removeVm(ref: AzureResourceRef): Promise<void> {
    const id = idOf('vm', ref);
    for (const diskId of this.vms.get(id)?.diskIds ?? []) {
      const disk = this.disks.get(diskId);
      if (disk !== undefined) disk.state = 'Unattached';
    }
    this.vms.delete(id);
  }

  async serialLog(ref: AzureResourceRef): Promise<string> {
    this.#require('vm', this.vms, idOf('vm', ref));
    return this.serial;
  }

  // ------------------------------------------------------------------------------------------------------- reading a disk

  async size(url: string): Promise<number> {
    const { body, footer } = this.#readable(url);
    return body.length + footer.length;
  }

  async *ranges(url: string): AsyncIterable<PageRange> {
    yield { offset: 0, length: await this.size(url) };
  }

  async read(url: string, range: PageRange): Promise<Uint8Array> {
    const { body, footer } = this.#readable(url);
    const end = range.offset + range.length;
    if (end <= body.length) return body.subarray(range.offset, end);
    return Buffer.concat([body, footer]).subarray(range.offset, end);
  }

  #readable(url: string): Disk {
    const [id = '', grant] = url.split('?grant=');
    const disk = this.disks.get(id);
    if (disk?.grant !== undefined && String(disk.grant) === grant) return disk;
    throw new StoreError('VaultRefusedKey', `${id} may not be read by this URL.`);
  }

  /** What is there under the name and is ours. */
  #alreadyMade<T extends { tags: Record<string, string> }>(
    kind: Kind,
    among: ReadonlyMap<string, T>,
    ref: AzureResourceRef,
    tags: Record<string, string>,
  ): T | undefined {
    if (!this.resourceGroups.has(ref.resourceGroup))
      throw refused('NotFound', `${kind} ${ref.name}: no resource group ${ref.resourceGroup}`);
    const existing = among.get(idOf(kind, ref));
    if (existing !== undefined && existing.tags[IDENTITY_TAG] !== tags[IDENTITY_TAG])
      throw refused('Conflict', `${kind} ${ref.name} is another ${IDENTITY_TAG}'s`);
    return existing;
  }

  #machineWith(nicId: string): Machine | undefined {
    return [...this.vms.values()].find((vm) => vm.nicIds.includes(nicId));
  }

  #require<T>(kind: Kind, among: ReadonlyMap<string, T>, id: string): T {
    const found = among.get(id);
    if (found === undefined) throw refused('NotFound', `${kind} ${id} does not exist`);
    return found;
  }
}

function idOf(kind: Kind, ref: AzureResourceRef): string {
  return `/${ref.resourceGroup}/${kind}s/${ref.name}`.toLowerCase();
}

// What is answered is as it was then, whatever becomes of the resource.

function viewOfDisk({ id, state, provisioning, sizeBytes, tags }: Disk): ManagedDisk {
  return { id, state, provisioning, sizeBytes, tags: { ...tags } };
}

function viewOfNic({ id, provisioning, privateIp, tags }: Nic): NetworkInterface {
  return { id, provisioning, privateIp, tags: { ...tags } };
}

function viewOfVm({ id, provisioning, power, tags }: Machine): VirtualMachine {
  return { id, provisioning, power, tags: { ...tags } };
}

function refused(code: ComputeErrorCode, message: string): ComputeError {
  return new ComputeError(code, message);
}
