/** Finalizers are set and released one by one, against the version that was looked at: another's are never lost. */
import type { KubeClient, KubeObject, ResourceType } from '../../platform/kubernetes.ts';

/** Adds it when it is missing. Returns the object as it is then. Conflict when the object changed meanwhile. */
export async function addFinalizer<T extends KubeObject>(
  client: KubeClient,
  target: { type: ResourceType; object: T; finalizer: string },
): Promise<T> {
  const before = target.object.metadata.finalizers ?? [];
  if (before.includes(target.finalizer)) return target.object;
  return await setFinalizers(client, target, [...before, target.finalizer]);
}

/** Releases it when it is there; the API server then deletes the object if that was the last one. */
export async function removeFinalizer<T extends KubeObject>(
  client: KubeClient,
  target: { type: ResourceType; object: T; finalizer: string },
): Promise<T> {
  const before = target.object.metadata.finalizers ?? [];
  if (!before.includes(target.finalizer)) return target.object;
  return await setFinalizers(
    client,
    target,
    before.filter((finalizer) => finalizer !== target.finalizer),
  );
}

async function setFinalizers<T extends KubeObject>(
  client: KubeClient,
  target: { type: ResourceType; object: T },
  finalizers: string[],
): Promise<T> {
  const { name, namespace, resourceVersion } = target.object.metadata;
  return await client.patch<T>(
    target.type,
    { name, ...(namespace === undefined ? {} : { namespace }) },
    { merge: { metadata: { resourceVersion, finalizers } } },
  );
}
