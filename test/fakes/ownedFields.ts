/**
 * Server-side apply for one owner: fields that it stated last time and that nobody changed since are its own. Lists are taken whole
 * (on a real server some are merged by a key of their items).
 */
import { isDeepStrictEqual } from 'node:util';

interface Stating {
  current: unknown;
  /** What the owner stated last time. */
  before: unknown;
  stated: unknown;
}

/** What becomes of `current`: what is stated, without what is not stated any more, beside what others set. */
export function applied({ current, before, stated }: Stating): unknown {
  if (!isMap(stated)) return structuredClone(stated);
  const result: Record<string, unknown> = isMap(current) ? { ...current } : {};
  for (const key of Object.keys(isMap(before) ? before : {}))
    if (!(key in stated)) set(result, key, withdrawn(result[key], valueAt(before, key)));
  for (const [key, value] of Object.entries(stated))
    result[key] = applied({ current: result[key], before: valueAt(before, key), stated: value });
  return result;
}

/** Paths of fields that somebody else set to something else. */
export function contested({ current, before, stated }: Stating, path = ''): string[] {
  if (current === undefined || isDeepStrictEqual(current, stated)) return [];
  if (!isMap(stated) || !isMap(current)) return isDeepStrictEqual(current, before) ? [] : [path];
  return Object.entries(stated).flatMap(([key, value]) =>
    contested(
      { current: current[key], before: valueAt(before, key), stated: value },
      `${path}.${key}`,
    ),
  );
}

function withdrawn(current: unknown, before: unknown): unknown {
  if (!isMap(current) || !isMap(before))
    return isDeepStrictEqual(current, before) ? undefined : current;
  const rest = { ...current };
  for (const [key, value] of Object.entries(before)) set(rest, key, withdrawn(rest[key], value));
  return Object.keys(rest).length === 0 ? undefined : rest;
}

function set(map: Record<string, unknown>, key: string, value: unknown): void {
  if (value === undefined) delete map[key];
  else map[key] = value;
}

function valueAt(map: unknown, key: string): unknown {
  return isMap(map) ? map[key] : undefined;
}

function isMap(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
