/**
 * The ledger of failovers: control/failovers/<name>.json, the truth about each (a Failover resource's status is a copy of it).
 *
 * Written put-if-absent when the failover is accepted, then by compare-and-set before every call that can't be repeated. Whoever
 * finds a failover in the ledger adopts it: a Failover applied a second time, or seen by a second cluster, makes nothing twice.
 */
import { FarshoreError } from '../platform/errors.ts';
import type { ObjectStore } from '../platform/ports.ts';
import { decodeDocument, encodeDocument, VaultDocumentError } from './documents/codec.ts';
import { type FailoverDocument, failoverDocumentSchema } from './documents/failover.ts';
import { vaultLayout } from './layout.ts';

/** Somebody else wrote the entry since we read it: this runner must stop and read again. */
export class LedgerConflict extends FarshoreError {
  constructor(name: string) {
    super(
      'LedgerConflict',
      `Failover ${name} was advanced by somebody else at the same time; this operator read it again.`,
    );
  }
}

/** One failover's entry, held with its ETag: `update` fails when somebody else wrote in between. */
export class LedgerEntry {
  readonly #objects: ObjectStore;
  readonly #key: string;
  readonly #writer: string | undefined;
  #etag: string;
  #document: FailoverDocument;

  private constructor(
    objects: ObjectStore,
    held: { key: string; etag: string; document: FailoverDocument; writer?: string | undefined },
  ) {
    this.#writer = held.writer;
    this.#objects = objects;
    this.#key = held.key;
    this.#etag = held.etag;
    this.#document = held.document;
  }

  get document(): FailoverDocument {
    return this.#document;
  }

  /** `writer` (8 random bytes, hex): whoever will advance it, for as long as it holds this entry. */
  static async read(
    objects: ObjectStore,
    name: string,
    options: { writer?: string } = {},
  ): Promise<LedgerEntry | undefined> {
    const key = vaultLayout.failover(name);
    const stored = await objects.get(key);
    if (stored === undefined) return undefined;
    const document = decodeDocument(failoverDocumentSchema, key, stored.body);
    if (document.name !== name)
      throw new VaultDocumentError(key, `it is of failover ${document.name}`);
    return new LedgerEntry(objects, { key, etag: stored.etag, document, writer: options.writer });
  }

  /** Enters the failover, or adopts the entry that is there already, whoever made it. */
  static async accept(objects: ObjectStore, document: FailoverDocument): Promise<LedgerEntry> {
    const key = vaultLayout.failover(document.name);
    const put = await objects.putIfAbsent(key, encodeDocument(failoverDocumentSchema, document));
    if (put.outcome === 'created')
      return new LedgerEntry(objects, { key, etag: put.etag, document });
    const existing = await LedgerEntry.read(objects, document.name);
    if (existing === undefined) throw new LedgerConflict(document.name);
    return existing;
  }

  /**
   * Replaces the entry. A try whose answer was lost is recognised by reading back what is there. Throws LedgerConflict when
   * somebody else's version is.
   */
  async update(change: Partial<FailoverDocument>): Promise<void> {
    const { writer: _, ...before } = this.#document;
    const writer = this.#writer === undefined ? {} : { writer: this.#writer };
    const document = { ...before, ...change, ...writer };
    const bytes = encodeDocument(failoverDocumentSchema, document);
    const result = await this.#objects.replace(this.#key, bytes, { etag: this.#etag });
    if (result.outcome === 'replaced') this.#etag = result.etag;
    else await this.#adoptIfOurs(bytes);
    this.#document = document;
  }

  async #adoptIfOurs(bytes: Uint8Array): Promise<void> {
    const stored = await this.#objects.get(this.#key);
    if (stored === undefined || Buffer.compare(stored.body, bytes) !== 0)
      throw new LedgerConflict(this.#document.name);
    this.#etag = stored.etag;
  }
}
