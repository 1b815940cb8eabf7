import type { RecoveryDeps } from '../../recovery/context.ts';
import type { RunOptions } from '../../recovery/failover.ts';
import { nextOf } from '../../recovery/itinerary.ts';
import type { FailoverDocument, StepName } from '../../vault/documents/failover.ts';
import { LedgerEntry } from '../../vault/ledger.ts';

/** Stands in for recovery/: does each step of the real itinerary by writing it down. One for all operators of a test. */
export class ScriptedRecovery {
  /** Steps that were done, over all operators: one that was done twice is a machine that was made twice. */
  readonly done: string[] = [];
  /** Steps that fail for good, with the failover. */
  readonly failing = new Set<string>();
  readonly #held = new Map<string, Promise<void>>();

  /** The step waits until what this returns is called. */
  hold(step: string): () => void {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#held.set(step, promise);
    return () => {
      this.#held.delete(step);
      resolve();
    };
  }

  readonly run = async (
    name: string,
    deps: RecoveryDeps,
    options: RunOptions,
  ): Promise<FailoverDocument> => {
    const entry = await LedgerEntry.read(deps.objects, name);
    if (entry === undefined) throw new Error('not in the ledger');
    for (;;) {
      options.signal.throwIfAborted();
      options.onChange?.(entry.document);
      const next = nextOf(entry.document);
      if (next.kind === 'rest') return entry.document;
      await deps.assertInControl();
      if (next.kind === 'settle') {
        await entry.update({ outcome: next.outcome });
        continue;
      }
      const startedAt = deps.clock.now();
      const others = entry.document.steps.filter((step) => step.name !== next.step);
      await entry.update({
        steps: [...others, { name: next.step, state: 'Running', startedAt, attempts: 1 }],
      });
      options.onChange?.(entry.document);
      await unlessAborted(this.#held.get(next.step), options.signal);
      this.done.push(next.step);
      if (this.failing.has(next.step))
        await entry.update({
          failure: { step: next.step, code: 'Scripted', message: 'It failed.' },
        });
      await entry.update({ steps: [...others, finished(next.step, startedAt)] });
    }
  };
}

function finished(name: StepName, startedAt: number): FailoverDocument['steps'][number] {
  return {
    name,
    state: 'Done',
    startedAt,
    finishedAt: startedAt,
    attempts: 1,
    message: 'done',
  };
}

async function unlessAborted(wait: Promise<void> | undefined, signal: AbortSignal): Promise<void> {
  if (wait === undefined) return;
  const { promise, reject } = Promise.withResolvers<never>();
  const abort = () => reject(signal.reason);
  signal.addEventListener('abort', abort, { once: true });
  try {
    await Promise.race([wait, promise]);
  } finally {
    signal.removeEventListener('abort', abort);
  }
}
