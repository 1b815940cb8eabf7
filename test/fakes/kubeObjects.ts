/** What the API server makes of what a caller sends: which of it counts, and what it adds of its own. */
import { isDeepStrictEqual } from 'node:util';
import {
  apiVersionOf,
  KubeError,
  type KubeErrorCode,
  type ObjectMeta,
  type ResourceType,
} from '../../platform/kubernetes.ts';
import type { StoredObject } from './kubeHistory.ts';

/** A change reaches the status, or all but the status. */
export type Half = 'main' | 'status';

const NAME = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/;
const CREATED = '2026-01-01T00:00:00Z';
const SYSTEM_FIELDS = [
  'uid',
  'resourceVersion',
  'generation',
  'creationTimestamp',
  'deletionTimestamp',
];
let generated = 0;

/** As it travels: a copy without what is undefined. */
export function asSent(object: object): StoredObject {
  return JSON.parse(JSON.stringify(object)) as StoredObject;
}

/** A new object has no status, and nothing that only the server can say. */
export function createdFrom(type: ResourceType, sent: StoredObject): StoredObject {
  const { name, generateName, ...metadata } = withoutSystemFields(sent.metadata);
  generated += 1;
  const made = name || `${generateName ?? ''}${generated.toString(36).padStart(5, '0')}`;
  if (made.length > 253 || !NAME.test(made))
    throw invalid(`metadata.name: ${JSON.stringify(made)} is no name of ${type.plural}`);
  return withPlainSecret({
    ...(without(sent, ['status']) as StoredObject),
    metadata: { name: made, ...(generateName === undefined ? {} : { generateName }), ...metadata },
  });
}

/** What a change of that half to `wanted` leaves of the object. */
export function updatedBy(before: StoredObject, wanted: StoredObject, half: Half): StoredObject {
  const { status, ...main } = half === 'status' ? before : wanted;
  const kept = half === 'status' ? wanted.status : before.status;
  const metadata = half === 'status' ? before.metadata : wanted.metadata;
  const { deletionTimestamp } = before.metadata;
  const finalizers = before.metadata.finalizers ?? [];
  if (
    deletionTimestamp !== undefined &&
    (metadata.finalizers ?? []).some((finalizer) => !finalizers.includes(finalizer))
  )
    throw invalid('metadata.finalizers: no new one can be added while the object is deleted');
  return withPlainSecret({
    ...main,
    ...(kept === undefined ? {} : { status: kept }),
    metadata: { ...withoutSystemFields(metadata), ...systemFields(before.metadata) },
  } as StoredObject);
}

/** With what the server says of every object. The generation rises with what is asked for, of which the deletion is part. */
export function stamped(
  type: ResourceType,
  object: StoredObject,
  from: { before: StoredObject | undefined; uid: string },
): StoredObject {
  const { before } = from;
  const known = before?.metadata;
  const rises =
    before === undefined ||
    known?.deletionTimestamp !== object.metadata.deletionTimestamp ||
    !isDeepStrictEqual(asked(before), asked(object));
  return {
    ...object,
    apiVersion: apiVersionOf(type),
    kind: type.kind,
    metadata: {
      ...object.metadata,
      uid: known?.uid ?? object.metadata.uid ?? from.uid,
      creationTimestamp: known?.creationTimestamp ?? CREATED,
      generation: (known?.generation ?? 0) + (rises ? 1 : 0),
    },
  };
}

export function invalid(message: string): KubeError {
  return refused('Invalid', message, 422);
}

export function refused(code: KubeErrorCode, message: string, status: number): KubeError {
  return new KubeError(code, message, { status });
}

function asked(object: StoredObject): object {
  return without(object, ['apiVersion', 'kind', 'metadata', 'status']);
}

/** A caller's words about these do not count. */
export function withoutSystemFields(metadata: ObjectMeta): ObjectMeta {
  return without(metadata, SYSTEM_FIELDS) as ObjectMeta;
}

function systemFields(metadata: ObjectMeta): object {
  return without(metadata, Object.keys(withoutSystemFields(metadata)));
}

function without(object: object, keys: readonly string[]): object {
  return Object.fromEntries(Object.entries(object).filter(([key]) => !keys.includes(key)));
}

function withPlainSecret(object: StoredObject): StoredObject {
  const { stringData, ...rest } = object;
  if (stringData === undefined) return object;
  const added = Object.entries(stringData as Record<string, string>).map(([key, text]) => [
    key,
    Buffer.from(text).toString('base64'),
  ]);
  return { ...rest, data: { ...(rest.data as object | undefined), ...Object.fromEntries(added) } };
}
