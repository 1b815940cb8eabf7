/** One translation of whatever the storage SDK, its HTTP client and the identity library throw into StoreError. */
import { errorCode, errorMessage } from '../errors.ts';
import { StoreError } from '../storeErrors.ts';

/** What was asked, for the message. Holds no credential. */
export interface BlobCallName {
  /** "Reading", "Writing", … */
  operation: string;
  /** The key, or the host of a disk's URL. */
  object: string;
}

/** The parts of an answer that decide. `status` is undefined when there was none. */
export interface BlobFailure {
  status: number | undefined;
  /** The service's own error code, or that of the network. */
  code: string;
  message: string;
}

/** As much of the SDK's RestError as is looked at. */
interface AnsweredError {
  statusCode?: unknown;
  details?: { errorCode?: unknown };
  response?: { headers?: { get?: (name: string) => string | undefined } };
}

const FENCE_CODES = /^(Lease|SequenceNumberConditionNotMet)/;
const IDENTITY_ERRORS =
  /^(AuthenticationError|AggregateAuthenticationError|CredentialUnavailableError|AuthenticationRequiredError)$/;
const CERTIFICATE_CODES =
  /^(CERT_|ERR_TLS_|UNABLE_TO_|DEPTH_ZERO_SELF|SELF_SIGNED|ERR_SSL_|EPROTO)/;
/** The request never left, so it can't have taken effect. */
const NEVER_SENT = /^(ECONNREFUSED|ENOTFOUND|EAI_AGAIN|EHOSTUNREACH|ENETUNREACH)$/;

export function blobFailure(error: unknown): BlobFailure {
  const rest = error as AnsweredError | null;
  const status = typeof rest?.statusCode === 'number' ? rest.statusCode : undefined;
  const header = rest?.response?.headers?.get?.('x-ms-error-code');
  const detail = rest?.details?.errorCode;
  const code = header ?? (typeof detail === 'string' ? detail : errorCode(error));
  // The SDK's messages go on for lines with request ids; the first says what it is.
  return { status, code, message: errorMessage(error).split('\n')[0] ?? '' };
}

/** Of the SDK's error, also when it is inside one of ours. */
export function originalFailure(error: unknown): BlobFailure {
  return blobFailure(error instanceof StoreError ? error.cause : error);
}

/** The blob is not there, and the container is. */
export function isMissing(error: unknown): boolean {
  const { status, code } = originalFailure(error);
  return status === 404 && code !== 'ContainerNotFound';
}

export function undefinedIfMissing(error: unknown): undefined {
  if (isMissing(error)) return undefined;
  throw error;
}

/** Whether the service certainly did nothing: it said so, or never heard of it. */
export function certainlyNotDone({ status, code }: BlobFailure): boolean {
  if (status === undefined) return NEVER_SENT.test(code);
  return status < 500 || status === 503;
}

/** Whether the same request may succeed in a moment. */
export function worthRetrying({ status, code }: BlobFailure): boolean {
  if (status === undefined) return !CERTIFICATE_CODES.test(code);
  return status === 408 || status === 429 || status >= 500;
}

/** `account`: the endpoint's host and container. */
export function translateBlobError(
  error: unknown,
  call: BlobCallName & { account: string },
): StoreError {
  if (error instanceof StoreError) return error;
  const failure = blobFailure(error);
  const { status, code } = failure;
  const what = `${call.operation} ${call.object} in ${call.account}`;
  const options = { cause: withoutRequest(error, failure) };
  if (error instanceof Error && IDENTITY_ERRORS.test(error.name))
    return new StoreError(
      'VaultRefusedKey',
      `${what} failed: no token could be had for it (${failure.message}). Check the identity's tenant, client id and secret or federation.`,
      options,
    );
  if (status === undefined) return unreachable(what, failure, options);
  if (status === 401 || status === 403)
    return new StoreError(
      'VaultRefusedKey',
      `${what} was refused (${status} ${code}). Check the account key, SAS or role assignment (Storage Blob Data Contributor), the account's firewall, and this machine's clock.`,
      options,
    );
  if (status === 404 && code === 'ContainerNotFound')
    return new StoreError(
      'VaultContainerMissing',
      `${what} failed: the container does not exist. Create it, or correct its name.`,
      options,
    );
  if (status === 404)
    return new StoreError('StoreObjectMissing', `${what} failed: it does not exist.`, options);
  if (status === 429 || status === 503)
    return new StoreError(
      'StoreThrottled',
      `${what} was put off (${status} ${code}) for as long as we tried. The account or blob is at its limit; we try again later.`,
      options,
    );
  if (status >= 500 || status === 408)
    return new StoreError(
      'VaultUnreachable',
      `${what} failed: the storage service answered ${status} ${code}. We try again later.`,
      options,
    );
  if ((status === 412 || status === 409) && FENCE_CODES.test(code))
    return new StoreError(
      'FenceLost',
      `${what} was refused (${code}): its lease or sequence number is another writer's. This writer stops.`,
      options,
    );
  if (status === 409 || status === 412)
    return new StoreError(
      'StoreConflict',
      `${what} was refused (${status} ${code}): ${failure.message}`,
      options,
    );
  return new StoreError(
    'StoreRequestRefused',
    `${what} was refused (${status} ${code}): ${failure.message}. Check that the account is a standard general-purpose v2 account without hierarchical namespace.`,
    options,
  );
}

/**
 * What the SDK throws carries the whole request: SAS, Authorization header, certificates. Whoever logs our error logs its cause, so
 * only what tells one failure from another is kept.
 */
function withoutRequest(error: unknown, failure: BlobFailure): Error {
  const cause = new Error(failure.message);
  const headers = (error as AnsweredError | null)?.response?.headers;
  return Object.assign(cause, {
    name: error instanceof Error ? error.name : 'Error',
    code: failure.code,
    ...(failure.status === undefined ? {} : { statusCode: failure.status }),
    requestId: headers?.get?.('x-ms-request-id'),
  });
}

function unreachable(what: string, failure: BlobFailure, options: ErrorOptions): StoreError {
  const hint = CERTIFICATE_CODES.test(failure.code)
    ? "The endpoint's certificate is not trusted: give its CA bundle, or check for a proxy that replaces certificates."
    : 'Check the network, proxy and DNS between here and the storage account.';
  return new StoreError(
    'VaultUnreachable',
    `${what} got no answer (${failure.code}: ${failure.message}). ${hint}`,
    options,
  );
}
