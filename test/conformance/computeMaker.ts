/** What the conformance suite of Compute works on: VHDs in a vault, and what is made of them. */
import { expect } from 'vitest';
import { encodeVhdFooter } from '../../dataplane/journal/vhd.ts';
import type {
  AzureResourceRef,
  Compute,
  DiskImageReader,
  ManagedDisk,
  NetworkInterface,
  PageBlobStore,
} from '../../platform/ports.ts';
import { collect, pattern } from './objectStore.ts';

const MIB = 1 << 20;

export const ours = { 'farshore-failover': 'f1', owner: 'tests' };
export const theirs = { 'farshore-failover': 'f2', owner: 'tests' };

/** An Azure to run the suite on. */
export interface ComputeSite {
  compute: Compute;
  images: DiskImageReader;
  /** In the storage account that disks are made from. */
  pages: PageBlobStore;
  storageAccountId: string;
  /** These exist; there is no resource group `elsewhere`, no location `nowhere`. */
  resourceGroup: string;
  location: string;
  subnet: { resourceGroup: string; network: string; subnet: string };
  /** Of that subnet, and nobody's. */
  address: string;
  size: string;
}

interface Made<T> {
  ref: AzureResourceRef;
  made: T;
}

type Identified = { made: { id: string } };
type Importing = Parameters<Compute['importDisk']>[1];
type CreatingNic = Parameters<Compute['createNic']>[1];

/** Makes the things of one test. */
export class Maker {
  readonly site: ComputeSite;
  readonly compute: Compute;
  readonly #prefix: string;
  #count = 0;

  constructor(site: ComputeSite, prefix: string) {
    this.site = site;
    this.compute = site.compute;
    this.#prefix = prefix;
  }

  readonly ref = (kind: string): AzureResourceRef => ({
    resourceGroup: this.site.resourceGroup,
    name: `${this.#prefix}-${kind}`,
  });

  /** Bytes that no other call gives, with a hole. */
  content(): Buffer {
    const body = Buffer.alloc(MIB);
    pattern(5_000).copy(body, MIB / 2 - 100);
    body.write(`${this.#prefix} ${++this.#count}`, 0);
    body.fill(this.#count, MIB - 512);
    return body;
  }

  /** Uploads it as a VHD; returns the URL. */
  async vhd(body: Buffer): Promise<string> {
    const footer = encodeVhdFooter({ bodySize: body.length, uniqueId: pattern(16) });
    return await this.blob(`${++this.#count}.vhd`, body.length + footer.length, [
      { offset: 0, bytes: body },
      { offset: body.length, bytes: footer },
    ]);
  }

  async blob(
    name: string,
    size: number,
    parts: readonly { offset: number; bytes: Uint8Array }[] = [],
  ): Promise<string> {
    const { pages } = this.site;
    const key = `${this.#prefix}/${name.replaceAll(' ', '-')}`;
    await pages.create(key, { size, sequenceNumber: 1 });
    const fence = await pages.fence(key, { sequenceNumber: 2, leaseSeconds: 60 });
    for (const { offset, bytes } of parts) await pages.write(key, bytes, offset, fence);
    await pages.release(key, fence);
    return pages.url(key);
  }

  keyOf(url: string): string {
    return url.slice(this.site.pages.url('').length);
  }

  importing(sourceUrl: string, change: Partial<Importing> = {}): Importing {
    return {
      location: this.site.location,
      sourceUrl,
      storageAccountId: this.site.storageAccountId,
      type: 'Standard_LRS',
      os: { type: 'Linux', generation: 'V1' },
      tags: ours,
      ...change,
    };
  }

  async interfacing(change: Partial<CreatingNic> = {}): Promise<CreatingNic> {
    const subnet = await this.compute.subnet(this.site.subnet);
    return {
      location: this.site.location,
      subnetId: subnet?.id ?? 'there is none',
      tags: ours,
      ...change,
    };
  }

  async disk(): Promise<Made<ManagedDisk> & { body: Buffer }> {
    const ref = this.ref(`disk-${++this.#count}`);
    const body = this.content();
    const made = await this.compute.importDisk(ref, this.importing(await this.vhd(body)));
    return { ref, made, body };
  }

  async nic(change: Partial<CreatingNic> = {}): Promise<Made<NetworkInterface>> {
    const ref = this.ref(`nic-${++this.#count}`);
    return { ref, made: await this.compute.createNic(ref, await this.interfacing(change)) };
  }

  /** Over the disks, of which the first boots. */
  machine(parts: { disks: readonly Identified[]; nics: readonly Identified[] }) {
    const [osDisk, ...dataDisks] = parts.disks.map(({ made }) => made.id);
    return {
      location: this.site.location,
      size: this.site.size,
      osDiskId: osDisk ?? '',
      osType: 'Linux' as const,
      dataDisks: dataDisks.map((id, lun) => ({ lun, id })),
      nicIds: parts.nics.map(({ made }) => made.id),
      tags: ours,
    };
  }

  /** Reads the disk by a URL of its own, which is revoked again. Azure shows a disk as the VHD that it exports, footer and all. */
  async expectContent(
    ref: AzureResourceRef,
    body: Buffer,
    meanwhile: () => Promise<void> = async () => undefined,
  ): Promise<void> {
    const { images } = this.site;
    const { url } = await this.compute.grantDiskRead(ref, { seconds: 60 });
    expect(await images.size(url)).toBe(body.length + 512);
    const found = Buffer.alloc(body.length);
    for (const { offset, length } of await collect(images.ranges(url)))
      if (offset < body.length)
        found.set(
          await images.read(url, { offset, length: Math.min(length, body.length - offset) }),
          offset,
        );
    expect(Buffer.compare(found, body)).toBe(0);
    await meanwhile();
    await this.compute.revokeDiskRead(ref);
  }
}
