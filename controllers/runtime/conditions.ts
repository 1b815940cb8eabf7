import type { Condition, KubeObject } from '../../platform/kubernetes.ts';

/** A condition as it is decided; when it changed and for which generation is added here. */
export type DecidedCondition = Pick<Condition, 'type' | 'status' | 'reason' | 'message'>;

/** What the CRDs take. */
const MESSAGE_LONGEST = 32_768;

/**
 * The conditions to write: in the order decided, each with the time at which its status last changed. Conditions that are not
 * decided any more are dropped.
 */
export function stampConditions(options: {
  previous: readonly Condition[];
  decided: readonly DecidedCondition[];
  /** metadata.generation of the object that was looked at. */
  generation: number | undefined;
  nowMs: number;
}): Condition[] {
  const now = new Date(options.nowMs).toISOString().replace(/\.\d{3}Z$/, 'Z');
  return options.decided.map((decided) => {
    const before = options.previous.find((condition) => condition.type === decided.type);
    return {
      ...decided,
      // Much of it comes from other processes: one that says too much must not keep the whole status from being written.
      message: decided.message.slice(0, MESSAGE_LONGEST),
      lastTransitionTime: before?.status === decided.status ? before.lastTransitionTime : now,
      ...(options.generation === undefined ? {} : { observedGeneration: options.generation }),
    };
  });
}

/** The condition of that type in an object's status. */
export function conditionOf(
  object: KubeObject & { status?: { conditions?: readonly Condition[] } },
  type: string,
): Condition | undefined {
  return object.status?.conditions?.find((condition) => condition.type === type);
}

/** Whether the condition is there, holds, and was computed from the object's present spec. */
export function holdsNow(
  object: KubeObject & { status?: { conditions?: readonly Condition[] } },
  type: string,
): boolean {
  const condition = conditionOf(object, type);
  return (
    condition?.status === 'True' &&
    (condition.observedGeneration ?? 0) >= (object.metadata.generation ?? 0)
  );
}
