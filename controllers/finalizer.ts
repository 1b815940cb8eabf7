/** Holds an object until its controller has let go of it, by a patch that fails when the list of finalizers changed meanwhile. */
import { FINALIZER, FORCE_DELETE_ANNOTATION } from '../crds/index.ts';
import {
  isKubeError,
  type KubeClient,
  type KubeObject,
  type ResourceType,
} from '../platform/kubernetes.ts';
import { keyOf } from './ports.ts';

export function isDeleted(object: KubeObject): boolean {
  return object.metadata.deletionTimestamp !== undefined;
}

export function isForced(object: KubeObject): boolean {
  return object.metadata.annotations?.[FORCE_DELETE_ANNOTATION] !== undefined;
}

export function isHeld(object: KubeObject): boolean {
  return object.metadata.finalizers?.includes(FINALIZER) ?? false;
}

export async function hold(
  kube: KubeClient,
  type: ResourceType,
  object: KubeObject,
): Promise<void> {
  if (isHeld(object)) return;
  await setFinalizers(kube, type, object, [...(object.metadata.finalizers ?? []), FINALIZER]);
}

/** Succeeds when the object is gone already. */
export async function letGo(
  kube: KubeClient,
  type: ResourceType,
  object: KubeObject,
): Promise<void> {
  if (!isHeld(object)) return;
  const others = (object.metadata.finalizers ?? []).filter((one) => one !== FINALIZER);
  try {
    await setFinalizers(kube, type, object, others);
  } catch (error) {
    if (!isKubeError(error, 'NotFound')) throw error;
  }
}

async function setFinalizers(
  kube: KubeClient,
  type: ResourceType,
  object: KubeObject,
  finalizers: readonly string[],
): Promise<void> {
  const { resourceVersion } = object.metadata;
  await kube.patch(type, keyOf(object), {
    merge: {
      metadata: { finalizers, ...(resourceVersion === undefined ? {} : { resourceVersion }) },
    },
  });
}
