/** Waiting for what an operator does in its own time. */
import type { Decided } from '../../controllers/decisions.ts';
import type {
  Condition,
  KubeClient,
  KubeObject,
  ObjectName,
  ResourceType,
} from '../../platform/kubernetes.ts';
import { systemClock } from '../../platform/node/clock.ts';

const PATIENCE_MS = 12_000;

/** Waits until what `look` finds satisfies everything; its last assertion error is the failure. */
export async function eventually<T>(look: () => Promise<T> | T): Promise<T> {
  const until = systemClock.monotonic() + PATIENCE_MS;
  for (;;) {
    try {
      return await look();
    } catch (error) {
      if (systemClock.monotonic() > until) throw error;
      await systemClock.sleep(25);
    }
  }
}

/** Waits for a condition; returns it. */
export async function untilCondition(
  kube: KubeClient,
  type: ResourceType,
  name: ObjectName,
  wanted: Partial<Decided> & { type: string },
): Promise<Condition> {
  return await eventually(async () => {
    const object = await kube.get<KubeObject & { status?: { conditions?: Condition[] } }>(
      type,
      name,
    );
    const found = object?.status?.conditions?.find((one) => one.type === wanted.type);
    for (const [field, value] of Object.entries(wanted))
      if (found?.[field as keyof Decided] !== value)
        throw new Error(
          `${type.kind} ${name.name}: ${wanted.type} is ${JSON.stringify(found)}, not ${JSON.stringify(wanted)}; all: ${JSON.stringify(object?.status?.conditions?.map((one) => `${one.type}=${one.status}/${one.reason}`))}`,
        );
    return found as Condition;
  });
}
