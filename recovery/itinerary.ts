/**
 * Which steps a failover takes, as data: the runner, the status and the CLI's display all read this list.
 */
import type { FailoverDocument, FailoverRequest, StepName } from '../vault/documents/failover.ts';

interface Station {
  step: StepName;
  /** Left out of this failover altogether when false. */
  when(request: FailoverRequest): boolean;
}

const always = () => true;

const forward: readonly Station[] = [
  { step: 'Validate', when: always },
  { step: 'FinalSync', when: (request) => request.type === 'Planned' },
  { step: 'SealJournal', when: (request) => request.type !== 'Test' },
  { step: 'ApplyJournal', when: always },
  { step: 'ChoosePoint', when: always },
  { step: 'CopyDisks', when: always },
  { step: 'ImportDisks', when: always },
  { step: 'VerifyDisks', when: (request) => request.verify === 'Full' },
  { step: 'RemoveCopies', when: always },
  { step: 'CreateNics', when: always },
  { step: 'CreateVm', when: always },
  { step: 'HealthCheck', when: always },
];

/** Removal goes against the order of creation: a disk or NIC can't be deleted while the machine holds it. */
const removal: readonly StepName[] = ['RemoveVm', 'RemoveNics', 'RemoveDisks', 'RemoveCopies'];

/** The steps that bring the machine up, in order. */
export function forwardSteps(request: FailoverRequest): StepName[] {
  return forward.filter((station) => station.when(request)).map((station) => station.step);
}

export type Next =
  | { kind: 'step'; step: StepName }
  /** Every step of the present leg is done: this is the outcome. */
  | { kind: 'settle'; outcome: 'FailedOver' | 'Committed' | 'CleanedUp' | 'Failed' }
  /** Nothing to do until somebody sets `desired`. */
  | { kind: 'rest' };

/** What a failover does next. Pure: the same entry always gives the same answer, so a dead runner's successor goes on where it was. */
export function nextOf(document: FailoverDocument): Next {
  const { outcome, desired, request, failure } = document;
  if (outcome === 'Committed' || outcome === 'CleanedUp') return { kind: 'rest' };
  if (desired === 'CleanedUp' && request.type === 'Test')
    return leg(document, removal, 'CleanedUp');
  const commits = desired === 'Committed' && request.type !== 'Test';
  if (outcome === 'FailedOver' || (outcome === 'Failed' && keepsMachine(document)))
    return commits ? leg(document, ['Commit'], 'Committed') : { kind: 'rest' };
  if (outcome === 'Failed') return { kind: 'rest' };
  if (failure !== undefined)
    return keepsMachine(document)
      ? { kind: 'settle', outcome: 'Failed' }
      : leg(document, removal, 'Failed');
  return leg(document, forwardSteps(request), 'FailedOver');
}

/** A machine that came up but did not pass its health check is left as it is, for people to look at; they may still commit it. */
export function keepsMachine(document: FailoverDocument): boolean {
  return document.failure?.step === 'HealthCheck';
}

/**
 * A failover that came to this outcome lets its machine go. One that is up, or that left a machine to be looked at, keeps it until
 * somebody commits it or has it cleaned up: until then it may still remove or keep what runs in Azure.
 */
export function releases(document: FailoverDocument): boolean {
  const { outcome } = document;
  if (outcome === 'Failed') return !keepsMachine(document);
  return outcome === 'Committed' || outcome === 'CleanedUp';
}

function leg(
  document: FailoverDocument,
  steps: readonly StepName[],
  outcome: 'FailedOver' | 'Committed' | 'CleanedUp' | 'Failed',
): Next {
  const step = steps.find(
    (name) => document.steps.find((entry) => entry.name === name)?.state !== 'Done',
  );
  return step === undefined ? { kind: 'settle', outcome } : { kind: 'step', step };
}
