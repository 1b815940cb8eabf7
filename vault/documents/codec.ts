/**
 * How the documents of a vault are read and written, all but the journal's binary segments. docs/FORMAT.md is their specification.
 *
 * Every document that is read from the vault passes its schema first: bytes from a store are never trusted. Unknown fields are
 * kept out, not refused; a document that needs a reader to understand more raises `formatVersion` in vault.json.
 */
import { z } from 'zod';
import { FarshoreError } from '../../platform/errors.ts';

/** The highest format that this build reads and writes. */
export const FORMAT_VERSION = 1;

/** Parses JSON bytes from the vault. Throws VaultDocumentError (`VaultDocumentInvalid`) naming the key and the first problem. */
export function decodeDocument<S extends z.ZodType>(
  schema: S,
  key: string,
  bytes: Uint8Array,
): z.output<S> {
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (cause) {
    throw new VaultDocumentError(key, 'it is not JSON', { cause });
  }
  const result = schema.safeParse(json);
  if (!result.success) {
    const issue = result.error.issues[0];
    throw new VaultDocumentError(key, `${issue?.path.join('.') || 'document'}: ${issue?.message}`);
  }
  return result.data;
}

/** JSON bytes of a document; the schema must accept the value (a breach is a bug of ours and throws). */
export function encodeDocument<S extends z.ZodType>(schema: S, value: z.output<S>): Uint8Array {
  return new TextEncoder().encode(`${JSON.stringify(z.encode(schema, value), undefined, 1)}\n`);
}

/** A document in the vault that can't be what it claims to be. */
export class VaultDocumentError extends FarshoreError {
  readonly key: string;

  constructor(key: string, problem: string, options?: ErrorOptions) {
    super(
      'VaultDocumentInvalid',
      `Vault document ${key} can't be read: ${problem}. Restore it from the storage account's soft-deleted versions, or report it.`,
      options,
    );
    this.key = key;
  }
}
