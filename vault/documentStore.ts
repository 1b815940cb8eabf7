/** Documents in an object store: read, created if absent, changed by compare-and-set. Safe against lost answers and other writers. */
import type { z } from 'zod';
import { FarshoreError } from '../platform/errors.ts';
import type { ObjectStore } from '../platform/ports.ts';
import { decodeDocument, encodeDocument, VaultDocumentError } from './documents/codec.ts';

/** The largest document but for assignments, which say their own limit. */
export const DOCUMENT_MAX_BYTES = 4 << 20;
/** Each lost race means that another writer got on, so this many in a row is not contention but a fault. */
const UPDATE_TRIES = 20;

export interface Versioned<T> {
  document: T;
  etag: string;
}

/** Other writers changed a document each time we tried to. */
export class DocumentContendedError extends FarshoreError {
  constructor(key: string) {
    super(
      'VaultDocumentContended',
      `Vault document ${key} was changed by others ${UPDATE_TRIES} times while we tried to change it. We will try again; if it goes on, look for a second installation that writes this vault.`,
    );
  }
}

/** Undefined when it does not exist. Throws VaultDocumentError for one that is too large or not what it should be. */
export async function readDocument<S extends z.ZodType>(options: {
  store: ObjectStore;
  key: string;
  schema: S;
  maxBytes?: number;
}): Promise<Versioned<z.output<S>> | undefined> {
  const maxBytes = options.maxBytes ?? DOCUMENT_MAX_BYTES;
  const stored = await options.store.get(options.key, { length: maxBytes });
  if (stored === undefined) return undefined;
  if (stored.size > maxBytes)
    throw new VaultDocumentError(options.key, `it is ${stored.size} bytes large, over ${maxBytes}`);
  const document = decodeDocument(options.schema, options.key, stored.body);
  return { document, etag: stored.etag };
}

/** `exists` carries what is there: the caller says whether that is its own, of a try whose answer was lost. */
export async function createDocument<S extends z.ZodType>(options: {
  store: ObjectStore;
  key: string;
  schema: S;
  document: z.output<S>;
}): Promise<({ outcome: 'created' } | { outcome: 'exists' }) & Versioned<z.output<S>>> {
  const { store, key, schema, document } = options;
  const bytes = encodeDocument(schema, document);
  for (let tries = 0; tries < UPDATE_TRIES; tries += 1) {
    const put = await store.putIfAbsent(key, bytes);
    if (put.outcome === 'created') return { outcome: 'created', document, etag: put.etag };
    const present = await readDocument({ store, key, schema });
    // Somebody removed it between the two: it is absent, so try to create it again.
    if (present !== undefined) return { outcome: 'exists', ...present };
  }
  throw new DocumentContendedError(key);
}

/**
 * Changes a document by compare-and-set. `change` sees the newest content and returns the new one, or undefined to leave it; it may
 * run several times, and again on its own result when an answer was lost, so it must not count on being run once.
 * Undefined when the document does not exist.
 */
export async function updateDocument<S extends z.ZodType>(options: {
  store: ObjectStore;
  key: string;
  schema: S;
  change: (current: z.output<S>) => z.output<S> | undefined | Promise<z.output<S> | undefined>;
}): Promise<(Versioned<z.output<S>> & { changed: boolean }) | undefined> {
  const { store, key, schema } = options;
  for (let tries = 0; tries < UPDATE_TRIES; tries += 1) {
    const current = await readDocument({ store, key, schema });
    if (current === undefined) return undefined;
    const next = await options.change(current.document);
    if (next === undefined) return { ...current, changed: false };
    const put = await store.replace(key, encodeDocument(schema, next), { etag: current.etag });
    if (put.outcome === 'replaced') return { document: next, etag: put.etag, changed: true };
  }
  throw new DocumentContendedError(key);
}
