import type { Lsn } from '../../vault/documents/fields.ts';

export function maxLsn(a: Lsn, b: Lsn): Lsn {
  if (a > b) return a;
  return b;
}

export function minLsn(a: Lsn, b: Lsn): Lsn {
  if (a < b) return a;
  return b;
}
