/** Whether machines' targets fit, asked of Azure rarely: when a target changes, and every few minutes. */
import { errorCode, errorMessage } from '../../platform/errors.ts';
import type { Clock, Compute } from '../../platform/ports.ts';
import { targetProblems } from '../../recovery/steps/validate.ts';
import type { CatalogDocument } from '../../vault/documents/catalog.ts';
import type { FailoverTarget } from '../../vault/documents/failover.ts';
import { canonical } from '../canonicalJson.ts';
import { fromCode, type Objection } from '../decisions.ts';
import type { ObjectKey } from '../runtime/objectKey.ts';

export interface TargetVerdict {
  /** Undefined: it fits. */
  objection: Objection | undefined;
}

export class TargetObserver {
  readonly #clock: Clock;
  readonly #keepMs: number;
  readonly #verdicts = new Map<
    ObjectKey,
    { question: string; atMs: number; verdict: TargetVerdict | undefined }
  >();

  constructor(deps: { clock: Clock }, options: { keepMs: number }) {
    this.#clock = deps.clock;
    this.#keepMs = options.keepMs;
  }

  /** Undefined when Azure can't be asked now and never answered before. Never throws. */
  async verdict(
    compute: Compute,
    key: ObjectKey,
    wanted: { targets: readonly FailoverTarget[]; disks: CatalogDocument['disks'] },
  ): Promise<TargetVerdict | undefined> {
    const question = canonical(wanted);
    const known = this.#verdicts.get(key);
    const nowMs = this.#clock.monotonic();
    const fresh = known?.question === question && nowMs - known.atMs < this.#keepMs;
    if (fresh) return known.verdict;
    const last = known?.question === question ? known.verdict : undefined;
    const verdict = (await this.#ask(compute, wanted)) ?? last;
    this.#verdicts.set(key, { question, atMs: nowMs, verdict });
    return verdict;
  }

  forget(key: ObjectKey): void {
    this.#verdicts.delete(key);
  }

  async #ask(
    compute: Compute,
    wanted: { targets: readonly FailoverTarget[]; disks: CatalogDocument['disks'] },
  ): Promise<TargetVerdict | undefined> {
    try {
      for (const target of wanted.targets) {
        const [problem] = await targetProblems({ compute }, { target, disks: wanted.disks });
        if (problem !== undefined)
          return { objection: { reason: fromCode(problem.code), message: problem.message } };
      }
      return { objection: undefined };
    } catch (error) {
      // Azure that does not answer says nothing about the target; Azure that refuses us does.
      return REFUSED.has(errorCode(error))
        ? { objection: { reason: fromCode(errorCode(error)), message: errorMessage(error) } }
        : undefined;
    }
  }
}

const REFUSED: ReadonlySet<string> = new Set(['AuthenticationFailed']);
