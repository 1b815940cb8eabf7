/** Farshore's finalizer: on every resource from the first visit, until nothing objects to its going or somebody forces it. */
import { FINALIZER, Reason } from '../crds/index.ts';
import type { KubeObject, ResourceType } from '../platform/kubernetes.ts';
import type { Objection } from './decisions.ts';
import { type Environment, isDeleted, isForced } from './environment.ts';
import { addFinalizer, removeFinalizer } from './runtime/finalizers.ts';

/** What became of a resource that was deleted. */
export interface Deletion {
  gone: boolean;
  /** What keeps it; of one that is gone, what was left behind by force. */
  objection: Objection | undefined;
}

/** The resource as it is with the finalizer; one that is being deleted gets none any more. Rejects with a KubeError. */
export async function hold<T extends KubeObject>(
  { kube }: Pick<Environment, 'kube'>,
  type: ResourceType,
  object: T,
): Promise<T> {
  if (isDeleted(object)) return object;
  return await addFinalizer(kube, { type, object, finalizer: FINALIZER });
}

/** Nothing objects to its going, or somebody forces it: then what is left behind is told. */
export function mayGo(
  { events }: Pick<Environment, 'events'>,
  resource: KubeObject,
  options: { title: string; objection: Objection | undefined; leftBehind?: string },
): boolean {
  const { title, objection } = options;
  if (objection === undefined) return true;
  if (!isForced(resource)) return false;
  events.record(resource, {
    type: 'Warning',
    reason: Reason.ForceDeleted,
    message: `${title} was let go by force. Left behind: ${options.leftBehind ?? objection.message}`,
  });
  return true;
}

/** The API server removes the resource with it. Rejects with a KubeError. */
export async function release(
  { kube, status }: Pick<Environment, 'kube' | 'status'>,
  type: ResourceType,
  resource: KubeObject,
): Promise<void> {
  await removeFinalizer(kube, { type, object: resource, finalizer: FINALIZER });
  status.forget(resource.metadata.uid);
}
