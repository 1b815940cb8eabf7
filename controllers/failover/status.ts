/** A Failover's status: a copy of the vault's ledger, and nothing else. Pure. */
import { ConditionType, type FailoverStatus, Reason } from '../../crds/index.ts';
import { forwardSteps } from '../../recovery/itinerary.ts';
import type { FailoverDocument, FailoverStep, StepName } from '../../vault/documents/failover.ts';
import { type Decided, fails, fromCode, holds, type Objection, unknown } from '../decisions.ts';
import { atRest, notStalled } from '../summary.ts';

export interface FailoverStatusInput {
  /** Why it was not accepted, or can't be looked at; undefined once it is in the ledger. */
  objection: Objection | undefined;
  /** It never begins. */
  final: boolean;
  deletion: Objection | undefined;
  ledger: FailoverDocument | undefined;
  /** Another resource (an earlier one of this name, another cluster's) was accepted under this name. */
  adopted: boolean;
}

export interface FailoverShown {
  status: Omit<FailoverStatus, 'conditions' | 'observedGeneration'>;
  conditions: Decided[];
}

export function showFailover(input: FailoverStatusInput): FailoverShown {
  const { ledger } = input;
  return {
    status: { phase: phaseOf(input), ...(ledger === undefined ? {} : fieldsOf(ledger)) },
    conditions: [
      accepted(input),
      failedOver(ledger),
      verified(ledger),
      committed(ledger),
      cleanedUp(ledger),
      ...summary(input),
    ],
  };
}

// --------------------------------------------------------------------------------------------------------------- conditions

function accepted({ objection, ledger, adopted }: FailoverStatusInput): Decided {
  const type = ConditionType.Accepted;
  if (objection !== undefined) return fails(type, objection);
  if (ledger === undefined)
    return unknown(type, { reason: Reason.Pending, message: 'It has not been looked at yet.' });
  return adopted
    ? holds(
        type,
        Reason.AdoptedFromLedger,
        `The vault's ledger holds a failover of this name since ${iso(ledger.acceptedAt)}; its outcome is shown, and nothing is made again.`,
      )
    : holds(type, Reason.Accepted, 'It stands in the vault’s ledger and happens once.');
}

function failedOver(ledger: FailoverDocument | undefined): Decided {
  const type = ConditionType.FailedOver;
  if (ledger === undefined) return fails(type, notBegun);
  switch (ledger.outcome) {
    case 'FailedOver':
      return holds(
        type,
        Reason.AwaitingDecision,
        'The machine is up in Azure; desiredState says what becomes of it.',
      );
    case 'Committed':
      return holds(type, Reason.Committed, 'The machine is up in Azure, for good.');
    case 'CleanedUp':
      return fails(type, { reason: Reason.CleanedUp, message: 'What the test made was removed.' });
    case 'Failed':
      return fails(type, failureOf(ledger));
    case 'Running':
      return fails(type, {
        reason: Reason.Running,
        message: 'Its steps run; status.steps says how far.',
      });
  }
}

function verified(ledger: FailoverDocument | undefined): Decided {
  const type = ConditionType.Verified;
  if (ledger === undefined) return unknown(type, notBegun);
  if (ledger.request.verify === 'None')
    return unknown(type, {
      reason: Reason.NotVerified,
      message: 'spec.verify is None: the disks were not read back.',
    });
  const match = rootsMatch(ledger);
  if (match === undefined)
    return unknown(type, { reason: Reason.Pending, message: 'The disks have not been read back.' });
  return match
    ? holds(type, Reason.RootsMatch, 'The recovered disks are what the recovery point promised.')
    : fails(type, {
        reason: Reason.RootsDiffer,
        message: 'The recovered disks are not what the recovery point promised.',
      });
}

function committed(ledger: FailoverDocument | undefined): Decided {
  return ledger?.outcome === 'Committed'
    ? holds(ConditionType.Committed, Reason.Committed, 'The machine stays in Azure for good.')
    : fails(ConditionType.Committed, { reason: Reason.Pending, message: 'It was not committed.' });
}

function cleanedUp(ledger: FailoverDocument | undefined): Decided {
  return ledger?.outcome === 'CleanedUp'
    ? holds(ConditionType.CleanedUp, Reason.CleanedUp, 'Everything that it made was removed.')
    : fails(ConditionType.CleanedUp, { reason: Reason.Pending, message: 'It was not cleaned up.' });
}

function summary(input: FailoverStatusInput): Decided[] {
  const { Ready, Reconciling, Stalled } = ConditionType;
  const { objection, deletion, ledger, final } = input;
  const done = (reason: string, message: string): Decided[] => [
    holds(Ready, reason, message),
    ...atRest(reason),
  ];
  const working = (why: Objection): Decided[] => [
    fails(Ready, why),
    holds(Reconciling, why.reason, why.message),
    notStalled(),
  ];
  const stuck = (why: Objection): Decided[] => [
    fails(Ready, why),
    fails(Reconciling, { reason: why.reason, message: 'Nothing happens any more.' }),
    holds(Stalled, why.reason, why.message),
  ];
  if (deletion !== undefined) return working(deletion);
  if (objection !== undefined) return final ? stuck(objection) : working(objection);
  switch (ledger?.outcome) {
    case 'FailedOver':
      return done(Reason.AwaitingDecision, 'The machine is up in Azure.');
    case 'Committed':
      return done(Reason.Committed, 'The machine stays in Azure for good.');
    case 'CleanedUp':
      return done(Reason.CleanedUp, 'The test came up, and what it made was removed.');
    case 'Failed':
      return stuck(failureOf(ledger));
    case 'Running': {
      const step = ledger.steps.findLast((one) => one.state === 'Running');
      // The code says that the step is being retried; a message alone is ordinary progress and must not change the condition.
      return step?.code === undefined
        ? working({ reason: Reason.Running, message: 'Its steps run; status.steps says how far.' })
        : working({
            reason: fromCode(step.code),
            message: `Step ${step.name}: ${step.message ?? ''}`,
          });
    }
    default:
      return working(notBegun);
  }
}

const notBegun: Objection = { reason: Reason.Pending, message: 'It has not begun.' };

function failureOf(ledger: FailoverDocument): Objection {
  const { failure } = ledger;
  return failure === undefined
    ? { reason: Reason.StepFailed, message: 'It failed.' }
    : { reason: fromCode(failure.code), message: `Step ${failure.step}: ${failure.message}` };
}

// ------------------------------------------------------------------------------------------------------------------- fields

function phaseOf({ objection, deletion, ledger, final }: FailoverStatusInput): string {
  if (deletion !== undefined) return 'Deleting';
  if (ledger !== undefined && objection === undefined) return ledger.outcome;
  if (objection === undefined) return 'Pending';
  return final ? 'Rejected' : 'Waiting';
}

function fieldsOf(ledger: FailoverDocument): FailoverShown['status'] {
  const current = ledger.steps.findLast((step) => step.state !== 'Done');
  const match = rootsMatch(ledger);
  const { point, health, vm } = ledger;
  const finished = finishedAt(ledger);
  return {
    machineId: ledger.request.machineId,
    acceptedAt: iso(ledger.acceptedAt),
    ...(finished === undefined ? {} : { finishedAt: iso(finished) }),
    ...(current === undefined ? {} : { currentStep: current.name }),
    steps: stepsOf(ledger),
    ...(point === undefined
      ? {}
      : {
          recoveryPoint: {
            name: String(point.lsn),
            lsn: String(point.lsn),
            time: iso(point.timeMs),
            consistency: point.consistency,
          },
        }),
    ...(ledger.rpoSeconds === undefined ? {} : { rpoSeconds: Math.round(ledger.rpoSeconds) }),
    ...(ledger.rtoSeconds === undefined ? {} : { rtoSeconds: Math.round(ledger.rtoSeconds) }),
    ...(match === undefined ? {} : { rootsMatch: match }),
    ...(vm?.id === undefined || isRemoved(ledger, 'RemoveVm') ? {} : { vmId: vm.id }),
    resources: resourcesOf(ledger),
    ...(health === undefined || health.evidence === ''
      ? {}
      : { evidence: { serialConsole: health.evidence.slice(0, 1024) } }),
  };
}

/** Those that ran, and those that are still to come on the way up. */
function stepsOf(ledger: FailoverDocument): NonNullable<FailoverStatus['steps']> {
  const forward = forwardSteps(ledger.request);
  const begun = new Map(ledger.steps.map((step) => [step.name, step]));
  const over =
    ledger.outcome !== 'Running' || ledger.failure !== undefined || ledger.desired === 'CleanedUp';
  const names = [...new Set<StepName>([...forward, ...begun.keys()])];
  return names.map((name) => {
    const step = begun.get(name);
    return step === undefined
      ? { name, state: over ? ('Skipped' as const) : ('Pending' as const) }
      : stepOf(step);
  });
}

function stepOf(step: FailoverStep): NonNullable<FailoverStatus['steps']>[number] {
  const { progress } = step;
  return {
    name: step.name,
    state: step.state,
    startedAt: iso(step.startedAt),
    ...(step.finishedAt === undefined ? {} : { finishedAt: iso(step.finishedAt) }),
    ...(step.message === undefined ? {} : { message: step.message.slice(0, 4096) }),
    ...(progress === undefined
      ? {}
      : {
          progress: {
            bytesTotal: progress.bytesTotal,
            bytesDone: progress.bytesDone,
            percent:
              progress.bytesTotal === 0
                ? 100
                : Math.min(100, Math.floor((progress.bytesDone / progress.bytesTotal) * 100)),
            bytesPerSecond: Math.round(progress.bytesPerSecond),
            ...(progress.bytesPerSecond > 0
              ? {
                  etaSeconds: Math.ceil(
                    Math.max(0, progress.bytesTotal - progress.bytesDone) / progress.bytesPerSecond,
                  ),
                }
              : {}),
          },
        }),
  };
}

function rootsMatch(ledger: FailoverDocument): boolean | undefined {
  const disks = ledger.disks ?? [];
  if (disks.some((disk) => disk.rootMatches === false)) return false;
  return disks.length > 0 && disks.every((disk) => disk.rootMatches === true) ? true : undefined;
}

function finishedAt(ledger: FailoverDocument): number | undefined {
  if (ledger.outcome === 'Running') return undefined;
  const last = forwardSteps(ledger.request).findLast((name) =>
    ledger.steps.some((step) => step.name === name && step.finishedAt !== undefined),
  );
  return ledger.health?.passedAt ?? ledger.steps.find((step) => step.name === last)?.finishedAt;
}

/** Azure ids of what it made and has not removed. */
export function resourcesOf(ledger: FailoverDocument): string[] {
  const disks = isRemoved(ledger, 'RemoveDisks') ? [] : (ledger.disks ?? []);
  const nics = isRemoved(ledger, 'RemoveNics') ? [] : (ledger.nics ?? []);
  const vm = isRemoved(ledger, 'RemoveVm') ? undefined : ledger.vm?.id;
  return [vm, ...nics.map((nic) => nic.id), ...disks.map((disk) => disk.managedDisk.id)].filter(
    (id) => id !== undefined,
  );
}

function isRemoved(ledger: FailoverDocument, step: StepName): boolean {
  return ledger.steps.some((one) => one.name === step && one.state === 'Done');
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}
