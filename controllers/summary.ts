/** Ready, Reconciling and Stalled, where every kind says the same with them. */
import { ConditionType, Reason } from '../crds/index.ts';
import { type Decided, fails, holds, type Objection } from './decisions.ts';

const { Ready, Reconciling, Stalled } = ConditionType;

/** It was deleted, and something holds it still. */
export function beingDeleted(objection: Objection): Decided[] {
  return [
    fails(Ready, objection),
    holds(Reconciling, Reason.Deleting, objection.message),
    fails(Stalled, { reason: Reason.Deleting, message: 'It is being deleted.' }),
  ];
}

/** All is as it should be; `message` says what that is. */
export function allDone(message: string): Decided[] {
  return [holds(Ready, Reason.Succeeded, message), ...atRest(Reason.Succeeded)];
}

/** Nothing is to be done, whatever Ready says. */
export function atRest(reason: string): Decided[] {
  return [
    fails(Reconciling, { reason, message: 'Nothing is left to do.' }),
    fails(Stalled, { reason, message: 'Nothing stands in the way.' }),
  ];
}

export function notStalled(): Decided {
  return fails(Stalled, { reason: Reason.Progressing, message: 'Work is under way.' });
}

/** Reasons not to accept a resource that pass by themselves: nobody has to correct it. */
const PASSING: ReadonlySet<string> = new Set([Reason.VaultNotReady, Reason.NotInControl]);

export function passesByItself(objection: Objection): boolean {
  return PASSING.has(objection.reason);
}
