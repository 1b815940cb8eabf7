/**
 * Turns whatever the Azure Resource Manager SDKs throw into a ComputeError.
 *
 * A refused call is a RestError with `statusCode` and Azure's `code`. An operation that failed later is a plain Error whose text is
 * all there is: "The long-running operation has failed. <code>. <message>". Logging in fails with errors of @azure/identity.
 */
import { ComputeError, type ComputeErrorCode } from '../computeErrors.ts';
import { AzureLoginError } from './login.ts';

const LONGEST_MESSAGE = 2_000;

/** Azure's codes that say more than their status does. */
const byAzureCode: Readonly<Record<string, ComputeErrorCode>> = {
  QuotaExceeded: 'QuotaExceeded',
  SkuNotAvailable: 'QuotaExceeded',
  AllocationFailed: 'QuotaExceeded',
  ZonalAllocationFailed: 'QuotaExceeded',
  OverconstrainedAllocationRequest: 'QuotaExceeded',
  OverconstrainedZonalAllocationRequest: 'QuotaExceeded',
  SubnetIsFull: 'QuotaExceeded',
  SubscriptionNotRegistered: 'InvalidRequest',
  RequestDisallowedByPolicy: 'InvalidRequest',
  AuthorizationFailed: 'AuthenticationFailed',
  LinkedAuthorizationFailed: 'AuthenticationFailed',
  ResourceNotFound: 'NotFound',
  ResourceGroupNotFound: 'NotFound',
  InvalidResourceReference: 'NotFound',
  ParentResourceNotFound: 'NotFound',
  NicInUse: 'Conflict',
  PrivateIPAddressInUse: 'Conflict',
  ResourceGroupBeingDeleted: 'Conflict',
  AnotherOperationInProgress: 'Conflict',
  RetryableError: 'Unreachable',
  InternalServerError: 'Unreachable',
  TooManyRequests: 'Throttled',
};

/** The error for a call; `what` completes the sentence "Azure … ": "import managed disk web-0 in resource group dr". */
export function armError(what: string, cause: unknown): ComputeError {
  if (cause instanceof ComputeError) return cause;
  if (!(cause instanceof Error)) return failed(what, 'Unreachable', String(cause), { cause });
  const { statusCode, code } = restFields(cause);
  if (statusCode !== undefined)
    return failed(what, refusalCode(statusCode, code, cause.message), cause.message, {
      cause,
      azureCode: code,
    });
  if (cause.name === 'AbortError' || cause.name === 'TimeoutError') return slow(what, cause);
  const asynchronous = /^The long-running operation has failed(?:\. ([^.\s]+)\. ([\s\S]*))?$/.exec(
    cause.message,
  );
  if (asynchronous !== null || cause.message === 'Operation was canceled')
    return asyncFailure(what, cause, asynchronous?.[1], asynchronous?.[2]);
  if (cause instanceof AzureLoginError)
    return failed(what, cause.refused ? 'AuthenticationFailed' : 'Unreachable', cause.message, {
      cause,
    });
  if (isLoginError(cause)) return failed(what, 'AuthenticationFailed', cause.message, { cause });
  return failed(what, 'Unreachable', cause.message, { cause });
}

/** A 429 that we were not willing to wait for. */
export function throttled(what: string, retryAfterMs: number, azureCode?: string): ComputeError {
  return new ComputeError(
    'Throttled',
    `Azure was asked to ${what} and answered that there are too many requests, for ${Math.ceil(retryAfterMs / 1000)} s more. It is tried again then; ask which other tools use the same identity if this stays.`,
    { retryAfterMs, azureCode },
  );
}

/** Whether a call failed because there is no such resource. */
export function isAbsent(error: unknown): boolean {
  return error instanceof Error && restFields(error).statusCode === 404;
}

function refusalCode(
  statusCode: number,
  azureCode: string | undefined,
  message: string,
): ComputeErrorCode {
  const known = azureCode === undefined ? undefined : byAzureCode[azureCode];
  if (statusCode === 429) return 'Throttled';
  if (known !== undefined) return known;
  if (saysQuota(azureCode, message)) return 'QuotaExceeded';
  if (statusCode === 401 || statusCode === 403) return 'AuthenticationFailed';
  if (statusCode === 404) return 'NotFound';
  if (statusCode === 409 || statusCode === 412) return 'Conflict';
  if (statusCode === 408 || statusCode >= 500) return 'Unreachable';
  return 'InvalidRequest';
}

/** Compute says OperationNotAllowed for quotas and for much else; Network has a code for every kind of limit. */
function saysQuota(azureCode: string | undefined, message: string): boolean {
  if (azureCode === undefined) return false;
  if (/LimitReached$|QuotaExceeded$|^ResourceQuotaLimitExceeded$/.test(azureCode)) return true;
  return azureCode === 'OperationNotAllowed' && /\bquota\b|exceeding approved/i.test(message);
}

function asyncFailure(
  what: string,
  cause: Error,
  azureCode: string | undefined,
  message: string | undefined,
): ComputeError {
  const known = azureCode === undefined ? undefined : byAzureCode[azureCode];
  const capacity = known === 'QuotaExceeded' || saysQuota(azureCode, message ?? '');
  const code = capacity ? 'QuotaExceeded' : 'OperationFailed';
  return failed(what, code, message ?? cause.message, { cause, azureCode });
}

function isLoginError(error: Error): boolean {
  return /^(AuthenticationError|AggregateAuthenticationError|AuthenticationRequiredError|CredentialUnavailableError)$/.test(
    error.name,
  );
}

function slow(what: string, cause: Error): ComputeError {
  return new ComputeError(
    'OperationSlow',
    `Azure was asked to ${what} and has not finished within the time we wait. It may still: the next attempt looks first.`,
    { cause: withoutRequest(cause) },
  );
}

const advice: Readonly<Record<ComputeErrorCode, string>> = {
  QuotaExceeded:
    'Choose another size, zone or subnet, remove what is not needed, or request more quota for the subscription in this region.',
  Throttled: 'It is tried again later.',
  NotFound: 'Create what is missing, or correct its name.',
  Conflict: 'Look at the resource in the portal: something else holds or changes it.',
  InvalidRequest: 'Correct what the message names.',
  AuthenticationFailed: "Check the vault's Azure credentials and the roles of that identity.",
  Unreachable: 'Check network, proxy and DNS between here and Azure, and the Azure status page.',
  OperationFailed: "Azure's message is all it says; the activity log of the resource may say more.",
  OperationSlow: 'Look again later.',
  NotLeading: 'Look which operator leads.',
};

function failed(
  what: string,
  code: ComputeErrorCode,
  message: string,
  details: { cause: unknown; azureCode?: string | undefined },
): ComputeError {
  const azureCode = details.azureCode === undefined ? '' : ` (${details.azureCode})`;
  const said = message.slice(0, LONGEST_MESSAGE).replace(/[.\s]+$/, '');
  const verb = code === 'Unreachable' ? 'there was no good answer' : 'it failed';
  return new ComputeError(
    code,
    `Azure was asked to ${what}, and ${verb}${azureCode}: ${said}. ${advice[code]}`,
    {
      cause: withoutRequest(details.cause),
      ...(details.azureCode === undefined ? {} : { azureCode: details.azureCode }),
    },
  );
}

/** The SDKs' errors carry the request, and with it a bearer token, which must reach no log. */
function withoutRequest(cause: unknown): Error {
  const kept = new Error(cause instanceof Error ? cause.message : String(cause));
  if (cause instanceof Error) {
    kept.name = cause.name;
    if (cause.stack !== undefined) kept.stack = cause.stack;
  }
  return kept;
}

function restFields(error: Error): { statusCode?: number; code?: string } {
  const fields: { statusCode?: number; code?: string } = {};
  if ('statusCode' in error && typeof error.statusCode === 'number')
    fields.statusCode = error.statusCode;
  if ('code' in error && typeof error.code === 'string') fields.code = error.code;
  return fields;
}
