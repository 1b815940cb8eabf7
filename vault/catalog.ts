/** catalog/<machineId>.json: what a recovery must know of a machine when nothing else is left. */
import type { ObjectStore } from '../platform/ports.ts';
import { createDocument, readDocument, updateDocument, type Versioned } from './documentStore.ts';
import { type CatalogDocument, catalogDocumentSchema } from './documents/catalog.ts';
import { VaultDocumentError } from './documents/codec.ts';
import { machineIdSchema } from './documents/fields.ts';
import { vaultLayout } from './layout.ts';

export class Catalog {
  readonly #store: ObjectStore;

  constructor(deps: { store: ObjectStore }) {
    this.#store = deps.store;
  }

  async read(machineId: string): Promise<Versioned<CatalogDocument> | undefined> {
    const key = vaultLayout.catalog(machineId);
    const found = await readDocument({ store: this.#store, key, schema: catalogDocumentSchema });
    if (found !== undefined) requireOf(found.document, machineId);
    return found;
  }

  /** `exists` carries what is there, which may be this caller's own of a try whose answer was lost. */
  async create(
    document: CatalogDocument,
  ): Promise<({ outcome: 'created' } | { outcome: 'exists' }) & Versioned<CatalogDocument>> {
    return await createDocument({
      store: this.#store,
      key: vaultLayout.catalog(document.machineId),
      schema: catalogDocumentSchema,
      document,
    });
  }

  /** Compare-and-set; `change` may run several times. Undefined when the machine is not in the catalog. */
  async update(
    machineId: string,
    change: (
      current: CatalogDocument,
    ) => CatalogDocument | undefined | Promise<CatalogDocument | undefined>,
  ): Promise<(Versioned<CatalogDocument> & { changed: boolean }) | undefined> {
    return await updateDocument({
      store: this.#store,
      key: vaultLayout.catalog(machineId),
      schema: catalogDocumentSchema,
      change: (current) => change(requireOf(current, machineId)),
    });
  }

  /** The ids of all machines, in order; keys that are none are passed over. */
  async *machineIds(): AsyncIterable<string> {
    for await (const { key } of this.#store.list(vaultLayout.catalogPrefix)) {
      const id = key.slice(vaultLayout.catalogPrefix.length).replace(/\.json$/, '');
      if (machineIdSchema.safeParse(id).success && key === vaultLayout.catalog(id)) yield id;
    }
  }

  /** Every machine's document. One that can't be read throws: a list that silently lacks a machine is worse than none. */
  async *list(): AsyncIterable<Versioned<CatalogDocument>> {
    for await (const machineId of this.machineIds()) {
      const found = await this.read(machineId);
      if (found !== undefined) yield found;
    }
  }

  async remove(machineId: string): Promise<'removed' | 'missing'> {
    const removed = await this.#store.remove(vaultLayout.catalog(machineId));
    return removed === 'removed' ? 'removed' : 'missing';
  }
}

/** What was copied from another machine's place would have this one recovered from that one's disks. */
function requireOf(document: CatalogDocument, machineId: string): CatalogDocument {
  if (document.machineId === machineId) return document;
  throw new VaultDocumentError(
    vaultLayout.catalog(machineId),
    `it is of machine ${document.machineId}`,
  );
}
