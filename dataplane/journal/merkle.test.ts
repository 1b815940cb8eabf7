import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  CHUNK_LEAVES,
  DiskTree,
  leafCount,
  leafEntry,
  paddedSize,
  RootBuilder,
  ZERO_LEAF_HASH,
} from './merkle.ts';
import { HASH_SIZE, LEAF_SIZE } from './record.ts';

const MIB = 1 << 20;
const sha = (...parts: Uint8Array[]) => {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(part);
  return new Uint8Array(hash.digest());
};

/** The definition, word for word, with no shortcut. */
function plainRoot(sizeBytes: number, leaves: Map<number, Uint8Array>): string {
  const count = Math.ceil(sizeBytes / MIB) * 16;
  let level = Array.from({ length: count }, (_, i) => leaves.get(i) ?? sha(new Uint8Array(65536)));
  while (level.length > 1) {
    const next: Uint8Array[] = [];
    for (let i = 0; i < level.length; i += 2) {
      const [left, right] = [level[i] as Uint8Array, level[i + 1]];
      next.push(right === undefined ? left : sha(Uint8Array.of(1), left, right));
    }
    level = next;
  }
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(count * 65536));
  return Buffer.from(sha(Buffer.from('farshore-root-v1'), size, level[0] as Uint8Array)).toString(
    'hex',
  );
}

function table(leaves: Map<number, Uint8Array>) {
  const reads: number[] = [];
  return {
    reads,
    async read(first: number, count: number) {
      reads.push(first);
      const out = new Uint8Array(count * HASH_SIZE);
      for (const [leaf, hash] of leaves)
        if (leaf >= first && leaf < first + count) out.set(hash, (leaf - first) * HASH_SIZE);
      return out;
    },
  };
}

const diskSize = fc.oneof(
  fc.integer({ min: 1, max: 40 * MIB }),
  fc.integer({ min: 60 * MIB, max: 140 * MIB }),
);

describe('DiskTree', () => {
  test('agrees with the definition after any series of changes, reading only changed chunks', async () => {
    await fc.assert(
      fc.asyncProperty(
        diskSize,
        fc.array(fc.array(fc.nat(100_000), { maxLength: 6 }), { minLength: 1, maxLength: 4 }),
        async (sizeBytes, rounds) => {
          const leaves = new Map<number, Uint8Array>();
          const tree = new DiskTree({ sizeBytes, known: 'zero' });
          for (const round of rounds) {
            const chunks = new Set<number>();
            for (const [i, pick] of round.entries()) {
              const leaf = pick % leafCount(sizeBytes);
              leaves.set(leaf, sha(Uint8Array.of(i, pick % 256)));
              tree.markChanged(leaf);
              chunks.add(Math.floor(leaf / CHUNK_LEAVES));
            }
            const source = table(leaves);
            expect(await tree.root(source)).toBe(plainRoot(sizeBytes, leaves));
            expect(source.reads).toHaveLength(chunks.size);
          }
          const fresh = new DiskTree({ sizeBytes, known: 'unread' });
          expect(await fresh.root(table(leaves))).toBe(plainRoot(sizeBytes, leaves));
        },
      ),
      { numRuns: 15 },
    );
  });

  test('follows a disk that grows and shrinks', async () => {
    const leaves = new Map([[3, sha(Uint8Array.of(3))]]);
    const tree = new DiskTree({ sizeBytes: 3 * MIB, known: 'unread' });
    for (const sizeBytes of [3 * MIB, 200 * MIB, 70 * MIB, 5 * MIB, 64 * MIB, 65 * MIB]) {
      tree.resize(sizeBytes);
      expect(await tree.root(table(leaves))).toBe(plainRoot(sizeBytes, leaves));
    }
  });

  test('the root of an empty 32 TiB disk costs no table read', async () => {
    const tree = new DiskTree({ sizeBytes: 32 * 2 ** 40, known: 'zero' });
    const source = table(new Map());
    expect(await tree.root(source)).toMatch(/^[0-9a-f]{64}$/);
    expect(source.reads).toEqual([]);
  });

  test('refuses sizes that no disk has', () => {
    for (const sizeBytes of [0, -1, 1.5, Number.NaN, 33 * 2 ** 40])
      expect(() => new DiskTree({ sizeBytes, known: 'zero' })).toThrow(RangeError);
  });
});

describe('RootBuilder', () => {
  test('gives the root of the same bytes however they are cut and whatever zeros are left out', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 3 * MIB }),
        fc.array(fc.tuple(fc.nat(3 * MIB), fc.integer({ min: 1, max: 200_000 }), fc.nat(255)), {
          maxLength: 5,
        }),
        fc.array(fc.integer({ min: 1, max: 300_000 }), { minLength: 1, maxLength: 8 }),
        (sizeBytes, writes, cuts) => {
          const body = new Uint8Array(paddedSize(sizeBytes));
          for (const [at, length, value] of writes) body.fill(value, at, at + length);
          const leaves = new Map<number, Uint8Array>();
          for (let leaf = 0; leaf < leafCount(sizeBytes); leaf++)
            leaves.set(leaf, sha(body.subarray(leaf * LEAF_SIZE, (leaf + 1) * LEAF_SIZE)));
          const builder = new RootBuilder({ sizeBytes });
          for (let at = 0, i = 0; at < body.length; i++) {
            const piece = body.subarray(at, at + (cuts[i % cuts.length] as number));
            if (i % 2 === 0 || piece.some((byte) => byte !== 0)) builder.add(at, piece);
            at += piece.length;
          }
          expect(builder.finish()).toBe(plainRoot(sizeBytes, leaves));
        },
      ),
      { numRuns: 60 },
    );
  });

  test('reports every leaf as tables hold it, zero leaves as zeros', () => {
    const sizeBytes = 65 * MIB;
    const seen = new Map<number, string>();
    const builder = new RootBuilder({
      sizeBytes,
      onLeaves: (first, entries) => {
        for (let i = 0; i * HASH_SIZE < entries.length; i++)
          seen.set(
            first + i,
            Buffer.from(entries.subarray(i * HASH_SIZE, (i + 1) * HASH_SIZE)).toString('hex'),
          );
      },
    });
    const data = new Uint8Array(LEAF_SIZE).fill(7);
    builder.add(LEAF_SIZE, new Uint8Array(LEAF_SIZE));
    builder.add(2 * LEAF_SIZE, data);
    builder.add(64 * MIB + 100, Uint8Array.of(9));
    const last = new Uint8Array(LEAF_SIZE);
    last[100] = 9;
    const leaves = new Map([
      [2, sha(data)],
      [1024, sha(last)],
    ]);
    expect(builder.finish()).toBe(plainRoot(sizeBytes, leaves));
    expect(seen.size).toBe(leafCount(sizeBytes));
    for (const [leaf, entry] of seen)
      expect(entry).toBe(Buffer.from(leaves.get(leaf) ?? new Uint8Array(32)).toString('hex'));
  });

  test('refuses bytes that go back or lie past the body', () => {
    const builder = new RootBuilder({ sizeBytes: MIB + 1 });
    builder.add(100, new Uint8Array(100));
    expect(() => builder.add(199, new Uint8Array(1))).toThrow(RangeError);
    expect(() => builder.add(2 * MIB - 1, new Uint8Array(2))).toThrow(RangeError);
  });
});

test('a leaf of zeros and a zero entry are the same thing', () => {
  expect(leafEntry(ZERO_LEAF_HASH).every((byte) => byte === 0)).toBe(true);
  const other = sha(Uint8Array.of(1));
  expect(leafEntry(other)).toBe(other);
});

test('a root never changes its value', async () => {
  const leaves = new Map([[0, sha(new Uint8Array(LEAF_SIZE).fill(1))]]);
  const tree = new DiskTree({ sizeBytes: 5 * MIB + 512, known: 'unread' });
  expect(await tree.root(table(leaves))).toMatchInlineSnapshot(
    `"cdc4aad450f25df7beb66e79bb369714758fcedf8a87e1ae69326a9184fdd3e4"`,
  );
});
