/**
 * Brings one machine up from its vault, step by step, and writes each step to the ledger before it acts. Nothing here needs the lost
 * site: no source machine (but for a Planned failover's last barrier), no process server, no cluster.
 *
 * Any step may be interrupted at any moment and run again by another process: steps look before they create, resources carry the
 * failover's id as a tag, and the ledger is written by compare-and-set.
 */
import { isComputeError } from '../platform/computeErrors.ts';
import { errorCode, errorMessage, type FarshoreError } from '../platform/errors.ts';
import type { FailoverDocument, FailoverStep, StepName } from '../vault/documents/failover.ts';
import { LedgerEntry } from '../vault/ledger.ts';
import type { RecoveryDeps, StepContext, StepRun } from './context.ts';
import { FailoverFatal } from './errors.ts';
import { nextOf, releases } from './itinerary.ts';
import { releaseMachine } from './steps/catalog.ts';
import { removeCopies, removeDisks, removeNics, removeVm } from './steps/cleanup.ts';
import { commit } from './steps/commit.ts';
import { copyDisks, importDisks, verifyDisks } from './steps/disks.ts';
import { finalSync } from './steps/finalSync.ts';
import { createNics, createVm, healthCheck } from './steps/machine.ts';
import { applyJournal, choosePoint } from './steps/point.ts';
import { sealJournal } from './steps/seal.ts';
import { validate } from './steps/validate.ts';

const runs: Record<StepName, StepRun> = {
  Validate: validate,
  FinalSync: finalSync,
  SealJournal: sealJournal,
  ChoosePoint: choosePoint,
  ApplyJournal: applyJournal,
  CopyDisks: copyDisks,
  ImportDisks: importDisks,
  VerifyDisks: verifyDisks,
  RemoveCopies: removeCopies,
  CreateNics: createNics,
  CreateVm: createVm,
  HealthCheck: healthCheck,
  Commit: commit,
  RemoveVm: removeVm,
  RemoveNics: removeNics,
  RemoveDisks: removeDisks,
};

const REPORT_EVERY_MS = 2_000;
const RETRY_FIRST_MS = 1_000;
const RETRY_LONGEST_MS = 60_000;
/** Errors that say this runner is no longer the one: stop at once, write nothing more. */
const supersededCodes = new Set(['LedgerConflict', 'NotInControl']);

export interface RunOptions {
  signal: AbortSignal;
  /** Told of every version of the ledger's entry, so that a status can follow. */
  onChange?(document: FailoverDocument): void;
}

/**
 * Advances the failover as far as it goes now: to its end, or to where it rests until somebody sets `desired`. Returns the entry.
 * Rejects only when this runner must stop (aborted, LedgerConflict, NotInControl) or the vault's entry can't be read.
 */
export async function runFailover(
  name: string,
  deps: RecoveryDeps,
  options: RunOptions,
): Promise<FailoverDocument> {
  const writer = Buffer.from(deps.random.bytes(8)).toString('hex');
  const entry = await LedgerEntry.read(deps.objects, name, { writer });
  if (entry === undefined)
    throw new FailoverFatal(
      'FailoverUnknown',
      `Failover ${name} is not in the vault's ledger. Create it first.`,
    );
  for (;;) {
    options.signal.throwIfAborted();
    options.onChange?.(entry.document);
    const next = nextOf(entry.document);
    if (next.kind === 'rest') return entry.document;
    if (next.kind === 'settle') await settle(entry, deps, next.outcome);
    else await runStep(entry, deps, { ...options, step: next.step });
  }
}

/** Sets what people want of a failover that came up; forward only. Returns the entry. */
export async function desire(
  name: string,
  deps: Pick<RecoveryDeps, 'objects'>,
  desired: 'Committed' | 'CleanedUp',
): Promise<FailoverDocument | undefined> {
  const entry = await LedgerEntry.read(deps.objects, name);
  if (entry === undefined) return undefined;
  if (entry.document.desired === undefined) await entry.update({ desired });
  return entry.document;
}

async function runStep(
  entry: LedgerEntry,
  deps: RecoveryDeps,
  options: RunOptions & { step: StepName },
): Promise<void> {
  const { step, signal } = options;
  await deps.assertInControl();
  await entry.update({ steps: begun(entry.document, step, deps.clock.now()) });
  options.onChange?.(entry.document);
  const report = reporter(entry, deps, options);
  const context: StepContext = { deps, entry, signal, report };
  try {
    const message = await runs[step](context);
    await entry.update({
      steps: changed(entry.document, step, {
        state: 'Done',
        finishedAt: deps.clock.now(),
        message,
        code: undefined,
      }),
    });
    deps.logger.info({ failover: entry.document.name, step }, message);
  } catch (error) {
    signal.throwIfAborted();
    if (supersededCodes.has(errorCode(error))) throw error;
    if (error instanceof FailoverFatal || isComputeError(error, 'InvalidRequest'))
      await fail(entry, deps, { step, error });
    else await delayRetry(entry, deps, { step, error, signal });
  }
}

/** Progress goes to the ledger every few seconds at most: it is for people, and each write costs a request. */
function reporter(
  entry: LedgerEntry,
  deps: RecoveryDeps,
  options: RunOptions & { step: StepName },
): StepContext['report'] {
  let last = -REPORT_EVERY_MS;
  return async (progress) => {
    options.signal.throwIfAborted();
    const now = deps.clock.monotonic();
    if (now - last < REPORT_EVERY_MS && progress.bytesDone < progress.bytesTotal) return;
    last = now;
    await entry.update({ steps: changed(entry.document, options.step, { progress }) });
    options.onChange?.(entry.document);
  };
}

async function fail(
  entry: LedgerEntry,
  deps: RecoveryDeps,
  failed: { step: StepName; error: FarshoreError },
): Promise<void> {
  const { step, error } = failed;
  deps.logger.error({ failover: entry.document.name, step, error }, 'the failover failed');
  const failure = { step, code: error.code, message: error.message };
  await entry.update({
    failure,
    steps: changed(entry.document, step, {
      state: 'Failed',
      finishedAt: deps.clock.now(),
      message: error.message,
      code: error.code,
    }),
  });
}

async function delayRetry(
  entry: LedgerEntry,
  deps: RecoveryDeps,
  failed: { step: StepName; error: unknown; signal: AbortSignal },
): Promise<void> {
  const { step, error, signal } = failed;
  const attempts = entry.document.steps.find((one) => one.name === step)?.attempts ?? 1;
  const wait = Math.min(RETRY_LONGEST_MS, RETRY_FIRST_MS * 2 ** Math.min(attempts - 1, 10));
  deps.logger.warn({ failover: entry.document.name, step, error, wait }, 'the step is tried again');
  await entry.update({
    steps: changed(entry.document, step, {
      message: `${errorMessage(error)} Trying again.`,
      code: errorCode(error),
    }),
  });
  await deps.clock.sleep(wait, signal);
}

async function settle(
  entry: LedgerEntry,
  deps: RecoveryDeps,
  outcome: 'FailedOver' | 'Committed' | 'CleanedUp' | 'Failed',
): Promise<void> {
  await deps.assertInControl();
  if (releases({ ...entry.document, outcome }))
    await releaseMachine(deps, entry.document, { backToSource: outcome === 'Failed' });
  await entry.update({ outcome });
  deps.logger.info({ failover: entry.document.name, outcome }, 'the failover is settled');
}

function begun(document: FailoverDocument, step: StepName, now: number): FailoverStep[] {
  const earlier = document.steps.find((one) => one.name === step);
  if (earlier === undefined)
    return [...document.steps, { name: step, state: 'Running', startedAt: now, attempts: 1 }];
  return changed(document, step, { state: 'Running', attempts: earlier.attempts + 1 });
}

function changed(
  document: FailoverDocument,
  step: StepName,
  change: Partial<FailoverStep>,
): FailoverStep[] {
  return document.steps.map((one) => (one.name === step ? { ...one, ...change } : one));
}
