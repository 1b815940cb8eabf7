/**
 * What a store (ObjectStore, PageBlobStore, DiskImageReader) throws. One class; `code` says which case it is.
 *
 * Outcomes that a caller decides on ("exists", "conflict", "missing") are return values, never errors.
 */
import { FarshoreError } from './errors.ts';

export type StoreErrorCode =
  /** No answer, or only server errors, for as long as we were willing to try. Transient; the request may have taken effect. */
  | 'VaultUnreachable'
  /** The account key, SAS or identity is wrong, expired, or lacks a right. */
  | 'VaultRefusedKey'
  /** The account answers, the container is not there. */
  | 'VaultContainerMissing'
  /** The account or blob asked us to slow down for as long as we were willing to try. Transient. */
  | 'StoreThrottled'
  /** The lease or sequence number is another writer's now: this writer must stop. */
  | 'FenceLost'
  /** The store's state contradicts the request (409, 412) in a way that the operation has no outcome for. */
  | 'StoreConflict'
  /** An operation on a blob that is not there. */
  | 'StoreObjectMissing'
  /** The request itself was refused (4xx): wrong account type, a limit, or a bug of ours. */
  | 'StoreRequestRefused'
  /** An answer that can't be right: a header missing, a body cut short. */
  | 'StoreAnswerInvalid';

const TRANSIENT: ReadonlySet<StoreErrorCode> = new Set(['VaultUnreachable', 'StoreThrottled']);

export class StoreError extends FarshoreError {
  declare readonly code: StoreErrorCode;
  /** Trying the same again later may succeed. */
  readonly transient: boolean;

  constructor(code: StoreErrorCode, message: string, options?: ErrorOptions) {
    super(code, message, options);
    this.transient = TRANSIENT.has(code);
  }
}

/** Whether an error is this one of a store's. */
export function isStoreError(error: unknown, code?: StoreErrorCode): error is StoreError {
  return error instanceof StoreError && (code === undefined || error.code === code);
}

/** The limits of Azure that both adapters and fakes enforce, in bytes. */
export const PAGE_SIZE = 512;
export const PAGE_WRITE_MAX = 4 << 20;
/** The largest page blob. */
export const PAGE_BLOB_MAX = 8 * 2 ** 40;

const METADATA_NAME = /^[a-z_][a-z0-9_]{0,63}$/;
const METADATA_VALUE = /^[\x20-\x7e]{0,1024}$/;

/**
 * Metadata travels as HTTP headers, which come back in lower case: names that would not survive that are refused, by fakes too.
 */
export function checkMetadata(key: string, metadata: Record<string, string>): void {
  for (const [name, value] of Object.entries(metadata))
    if (!METADATA_NAME.test(name) || !METADATA_VALUE.test(value))
      throw new StoreError(
        'StoreRequestRefused',
        `Metadata ${JSON.stringify(name)} of ${key} is not lower-case letters, digits and _, or its value is not printable ASCII.`,
      );
}
