/** What exists in the emulated subscription. Ids compare without regard to case, as Azure's do. Kept in a file. */
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';

export interface Resource {
  id: string;
  name: string;
  /** Such as Microsoft.Compute/disks. */
  type: string;
  location: string;
  tags: Record<string, string>;
  zones?: string[];
  sku?: { name: string };
  /** Of a disk: the machine that it is attached to. */
  managedBy?: string;
  /** Names the resource's files; unique over time. */
  uid: string;
  /** What the client sees. */
  properties: Record<string, unknown> & { provisioningState: string };
  /** What it does not: the body of the PUT that made it, and the like. */
  hidden: Record<string, unknown>;
}

export class Resources {
  readonly #file: string;
  readonly #byId = new Map<string, Resource>();

  constructor(file: string) {
    this.#file = file;
    if (!existsSync(file)) return;
    // What was half made when the emulator died is not there.
    for (const resource of JSON.parse(readFileSync(file, 'utf8')) as Resource[])
      if (/^(Succeeded|Failed)$/.test(resource.properties.provisioningState))
        this.#byId.set(resource.id.toLowerCase(), resource);
    this.#releaseOrphans();
  }

  get(id: string): Resource | undefined {
    return this.#byId.get(id.toLowerCase());
  }

  set(resource: Resource): void {
    this.#byId.set(resource.id.toLowerCase(), resource);
    this.save();
  }

  delete(id: string): void {
    this.#byId.delete(id.toLowerCase());
    this.save();
  }

  /** Of a type and in a resource group, where these are given. */
  list(filter: { type?: string; group?: string } = {}): Resource[] {
    return [...this.#byId.values()].filter(
      (resource) =>
        (filter.type === undefined || resource.type.toLowerCase() === filter.type.toLowerCase()) &&
        (filter.group === undefined ||
          groupOf(resource.id).toLowerCase() === filter.group.toLowerCase()),
    );
  }

  /** Disks and interfaces of machines that are not there after a restart. */
  #releaseOrphans(): void {
    for (const resource of this.#byId.values()) {
      if (resource.managedBy !== undefined && this.get(resource.managedBy) === undefined) {
        delete resource.managedBy;
        resource.properties.diskState = 'Unattached';
      }
      const vm = resource.properties.virtualMachine as { id: string } | undefined;
      if (vm !== undefined && this.get(vm.id) === undefined)
        delete resource.properties.virtualMachine;
    }
  }

  /** After a change to a resource's fields. */
  save(): void {
    writeFileSync(`${this.#file}.new`, JSON.stringify([...this.#byId.values()], undefined, 1));
    renameSync(`${this.#file}.new`, this.#file);
  }
}

export function groupOf(id: string): string {
  return id.split('/')[4] ?? '';
}

/** As the client sees it. */
export function view(resource: Resource): Record<string, unknown> {
  const { id, name, type, location, tags, zones, sku, managedBy, properties } = resource;
  return {
    id,
    name,
    type,
    location,
    tags,
    ...(zones === undefined ? {} : { zones }),
    ...(sku === undefined ? {} : { sku }),
    ...(managedBy === undefined ? {} : { managedBy }),
    properties,
  };
}
