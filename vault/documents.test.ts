import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { standsHostileBytes } from '../test/fuzz/hostile.ts';
import { documentSchemas, documentTargets } from '../test/fuzz/targets/vault.ts';
import { valuesOf } from '../test/fuzz/values.ts';
import { decodeDocument, encodeDocument, VaultDocumentError } from './documents/codec.ts';
import { pointDocumentSchema } from './documents/point.ts';

const hash = '0f'.repeat(32);
const point = {
  machineId: '22'.repeat(16),
  lsn: 9_007_199_254_740_993n,
  timeMs: 1_790_000_000_000,
  consistency: 'Crash' as const,
  segment: { seq: 7, digest: hash, writerEpoch: 1 },
  disks: [
    {
      index: 0,
      name: 'root',
      sizeBytes: 1 << 30,
      root: hash,
      replica: { key: 'a', snapshot: 's' },
      leaves: { key: 'b', snapshot: 's' },
    },
  ],
  createdAt: 1_790_000_000_001,
};

describe('hostile documents', () => {
  test.each(documentTargets.map((target) => [target.name, target] as const))(
    '%s: any bytes end in VaultDocumentInvalid or in a document that encodes again',
    async (_name, target) => {
      await standsHostileBytes(target);
    },
  );

  test.each(Object.entries(documentSchemas))('%s: any document comes back', (_name, schema) => {
    fc.assert(
      fc.property(valuesOf(schema), (value) => {
        const bytes = encodeDocument(schema, value as never);
        const document = decodeDocument(schema, 'some/key', bytes);
        const again = encodeDocument(schema, document as never);
        expect(Buffer.compare(again, bytes)).toBe(0);
      }),
      { numRuns: 50 },
    );
  });

  test('a field of another type, anywhere in a good document, is refused', () => {
    const good = JSON.parse(new TextDecoder().decode(encodeDocument(pointDocumentSchema, point)));
    const paths = leavesOf(good);
    expect(paths.length).toBeGreaterThan(15);
    for (const path of paths)
      for (const wrong of [null, [], {}, true]) {
        const bytes = new TextEncoder().encode(JSON.stringify(replaced(good, path, wrong)));
        expect(() => decodeDocument(pointDocumentSchema, 'points/x', bytes)).toThrow(
          VaultDocumentError,
        );
      }
  });

  test('positions are exact beyond 2^53, and nothing but canonical decimal digits', () => {
    const bytes = encodeDocument(pointDocumentSchema, point);
    expect(decodeDocument(pointDocumentSchema, 'k', bytes).lsn).toBe(9_007_199_254_740_993n);
    const text = new TextDecoder().decode(bytes);
    for (const lsn of [
      '"-1"',
      '"01"',
      '"1e3"',
      '""',
      '" 1"',
      '1',
      '"0x1"',
      `"${'9'.repeat(20)}"`,
    ]) {
      const altered = new TextEncoder().encode(text.replace('"9007199254740993"', lsn));
      expect(() => decodeDocument(pointDocumentSchema, 'k', altered)).toThrow(VaultDocumentError);
    }
  });

  test('unknown fields are left out, and a prototype can not be slipped in', () => {
    const text = new TextDecoder().decode(encodeDocument(pointDocumentSchema, point));
    const altered = text.replace('{', '{"__proto__":{"polluted":1},"later":2,');
    const document = decodeDocument(pointDocumentSchema, 'k', new TextEncoder().encode(altered));
    expect(document).toEqual(point);
    expect(({} as { polluted?: number }).polluted).toBeUndefined();
  });
});

type Path = (string | number)[];

function leavesOf(value: unknown, path: Path = []): Path[] {
  if (typeof value !== 'object' || value === null) return [path];
  return Object.entries(value).flatMap(([key, inner]) => leavesOf(inner, [...path, key]));
}

function replaced(value: unknown, path: Path, by: unknown): unknown {
  const [key, ...rest] = path;
  if (key === undefined) return by;
  const copy = Array.isArray(value) ? [...value] : { ...(value as object) };
  const holder = copy as Record<string, unknown>;
  holder[key] = replaced(holder[key], rest, by);
  return copy;
}
