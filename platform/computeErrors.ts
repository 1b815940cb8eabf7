/**
 * What Compute throws. One class; `code` says which case it is.
 *
 * "Does not exist" is a return value of the `get` operations, never an error of theirs; of others it is NotFound.
 */
import { FarshoreError } from './errors.ts';

export type ComputeErrorCode =
  /** The subscription's or region's quota, or the capacity of the zone or subnet, does not allow it. */
  | 'QuotaExceeded'
  /** Azure wants fewer calls for longer than we were willing to wait. Transient; `retryAfterMs` says how long. */
  | 'Throttled'
  /** Something that the call names is not there: a resource group, a subnet, a disk, the blob to import. */
  | 'NotFound'
  /** The state of a resource contradicts the call: attached, in use, being changed, or somebody else's under our name. */
  | 'Conflict'
  /** Azure refuses the call as it is: a wrong size, an image that is no VHD, a policy. Repeating it is of no use. */
  | 'InvalidRequest'
  /** The identity is wrong, its secret expired, or it lacks a role. */
  | 'AuthenticationFailed'
  /** No answer, or only server errors, for as long as we were willing to try. Transient; the call may have taken effect. */
  | 'Unreachable'
  /** Azure took the call, worked on it, and failed. The resource may exist in a failed state. */
  | 'OperationFailed'
  /** Azure is still working on it after our deadline. Transient: look again. */
  | 'OperationSlow'
  /** Not asked at all: this process may have been succeeded by another. */
  | 'NotLeading';

const TRANSIENT: ReadonlySet<ComputeErrorCode> = new Set([
  'Throttled',
  'Unreachable',
  'OperationSlow',
  'NotLeading',
]);

export interface ComputeErrorDetails extends ErrorOptions {
  /** Azure's own code, such as `SubnetNotFound`; it is also in the message. */
  azureCode?: string;
  retryAfterMs?: number;
}

export class ComputeError extends FarshoreError {
  declare readonly code: ComputeErrorCode;
  /** Trying the same again later may succeed. */
  readonly transient: boolean;
  readonly azureCode: string | undefined;
  /** Of Throttled alone. */
  readonly retryAfterMs: number | undefined;

  constructor(code: ComputeErrorCode, message: string, details: ComputeErrorDetails = {}) {
    super(code, message, details);
    this.transient = TRANSIENT.has(code);
    this.azureCode = details.azureCode;
    this.retryAfterMs = details.retryAfterMs;
  }
}

/** Whether an error is this one of Compute's. */
export function isComputeError(error: unknown, code?: ComputeErrorCode): error is ComputeError {
  return error instanceof ComputeError && (code === undefined || error.code === code);
}
