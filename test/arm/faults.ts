/** What goes wrong on request, and with which calls. */
import { ArmFailure } from './failure.ts';

export type FaultKind =
  /** 429 with Retry-After; `compute` is its unwrapped body. */
  | { kind: 'throttle'; retryAfterSeconds: number; body: 'wrapped' | 'compute' }
  | { kind: 'error'; status: number; code: string; message: string }
  | { kind: 'quota' }
  /** The call is taken, its operation fails; what a PUT made stays as Failed. */
  | { kind: 'asyncFailure'; code: string; message: string }
  /** The connection breaks and nothing has happened. */
  | { kind: 'dropBefore' }
  /** The connection breaks when all has happened but the answer. */
  | { kind: 'dropAfter' }
  /** The answer to this call is held back. */
  | { kind: 'delay'; ms: number }
  /** The operation that this call begins takes so long. */
  | { kind: 'slow'; ms: number };

export type Fault = FaultKind & {
  /** Such as `PUT disks`, `POST disks/beginGetAccess`, `GET operations`, `POST login`; all calls when left out. */
  operation?: string;
  /** Of the resource. */
  name?: string;
  /** How many calls are hit [1]. */
  times?: number;
  /** How many matching calls are let through first [0]. */
  skip?: number;
};

export class Faults {
  #pending: { fault: Fault; skip: number; times: number }[] = [];

  add(fault: Fault): void {
    this.#pending.push({ fault, skip: fault.skip ?? 0, times: fault.times ?? 1 });
  }

  clear(): void {
    this.#pending = [];
  }

  /** The fault that hits this call, which uses up one of its times. */
  take(call: { operation: string; name: string }): Fault | undefined {
    for (const pending of this.#pending) {
      const { fault } = pending;
      if (fault.operation !== undefined && fault.operation !== call.operation) continue;
      if (fault.name !== undefined && fault.name !== call.name) continue;
      if (pending.times === 0) continue;
      if (pending.skip-- > 0) continue;
      pending.times--;
      return fault;
    }
    return undefined;
  }
}

/** The refusal that a fault stands for; undefined for those that are no answer. */
export function refusalOf(fault: Fault): ArmFailure | undefined {
  if (fault.kind === 'error') return new ArmFailure(fault.status, fault.code, fault.message);
  if (fault.kind === 'quota')
    return new ArmFailure(
      409,
      'OperationNotAllowed',
      'Operation could not be completed as it results in exceeding approved Total Regional Cores quota. Additional details - Deployment Model: Resource Manager, Current Limit: 10, Current Usage: 10, Additional Required: 2, (Minimum) New Limit Required: 12.',
    );
  if (fault.kind !== 'throttle') return undefined;
  const message = 'The server rejected the request because too many requests have been received.';
  const body =
    fault.body === 'wrapped'
      ? { error: { code: 'TooManyRequests', message } }
      : { code: 'OperationNotAllowed', message, details: [{ code: 'TooManyRequests', message }] };
  return new ArmFailure(429, 'TooManyRequests', message, {
    body,
    headers: {
      'retry-after': String(fault.retryAfterSeconds),
      'x-ms-ratelimit-remaining-resource': 'Microsoft.Compute/HighCostGet30Min;0',
    },
  });
}
