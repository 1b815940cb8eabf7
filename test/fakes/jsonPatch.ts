import { isDeepStrictEqual } from 'node:util';
import type { JsonPatch } from '../../platform/kubernetes.ts';

type Parent = Record<string, unknown> | unknown[];

/** RFC 6902, on a copy. Throws with the operation that can't be done: then none is. */
export function jsonPatched<T>(target: T, patch: JsonPatch): T {
  const result = structuredClone(target);
  for (const operation of patch)
    if (!done(result, operation))
      throw new Error(`can't ${operation.op} ${operation.path}: it is not there, or not so`);
  return result;
}

function done(document: unknown, operation: JsonPatch[number]): boolean {
  const keys = operation.path.split('/').slice(1).map(unescaped);
  const key = keys.pop() ?? '';
  const parent = keys.reduce<unknown>(valueAt, document);
  if (!isParent(parent)) return false;
  if (operation.op === 'test') return isDeepStrictEqual(valueAt(parent, key), operation.value);
  if (operation.op === 'add') return added(parent, key, structuredClone(operation.value));
  if (valueAt(parent, key) === undefined) return false;
  if (operation.op === 'replace') Object.assign(parent, { [key]: operation.value });
  else if (Array.isArray(parent)) parent.splice(Number(key), 1);
  else delete parent[key];
  return true;
}

function added(parent: Parent, key: string, value: unknown): boolean {
  if (!Array.isArray(parent)) {
    parent[key] = value;
    return true;
  }
  const index = key === '-' ? parent.length : Number(key);
  if (!(index >= 0 && index <= parent.length)) return false;
  parent.splice(index, 0, value);
  return true;
}

function valueAt(parent: unknown, key: string): unknown {
  return isParent(parent) && Object.hasOwn(parent, key)
    ? (parent as Record<string, unknown>)[key]
    : undefined;
}

function isParent(value: unknown): value is Parent {
  return typeof value === 'object' && value !== null;
}

function unescaped(key: string): string {
  return key.replaceAll('~1', '/').replaceAll('~0', '~');
}
