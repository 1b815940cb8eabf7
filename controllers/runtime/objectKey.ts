import type { KubeObject, ObjectName } from '../../platform/kubernetes.ts';

/** `namespace/name`, or `name` of what has no namespace: what queues and caches hold in place of objects. */
export type ObjectKey = string;

export function keyOf(object: KubeObject): ObjectKey {
  return keyOfName(object.metadata);
}

export function keyOfName(name: ObjectName): ObjectKey {
  return name.namespace === undefined ? name.name : `${name.namespace}/${name.name}`;
}

export function nameOfKey(key: ObjectKey): ObjectName {
  const slash = key.indexOf('/');
  return slash === -1
    ? { name: key }
    : { namespace: key.slice(0, slash), name: key.slice(slash + 1) };
}
