import type { SeededRandom } from '../fakes/seededRandom.ts';

/** Values at which lengths and counters turn over. */
const EDGES = [0, 1, 2, 15, 16, 63, 64, 127, 128, 255, 256, 511, 512, 4095, 4096, 65535, 65536];
const LARGE = [2 ** 24, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1];
const TEXTS = [
  ...['null', '{}', '[]', '""', '-1', '-0', '1e999', '0.5', '9007199254740993', '"__proto__":{},'],
  ...['\\u0000', '\\ud800', '\ufeff', ',', ':', '"'],
];
const VALUES = [
  null,
  true,
  -1,
  0,
  1.5,
  2 ** 53,
  1e300,
  '',
  '0',
  '-1',
  'x'.repeat(300),
  [],
  {},
  [{}],
];
const LENGTH_MAX = 64 << 10;

/** Bytes changed in a few places, or grown together from two inputs. Never more than 64 KiB. */
export function mutate(
  bytes: Uint8Array,
  options: { random: SeededRandom; other: Uint8Array },
): Uint8Array {
  const { random, other } = options;
  const document = random.chance(0.4) ? changeDocument(bytes, random) : undefined;
  if (document !== undefined) return document;
  let changed: Uint8Array = bytes.slice();
  for (let left = 1 + random.below(1 << random.below(4)); left > 0; left--)
    changed = changeOnce(changed, random, other);
  return changed.length > LENGTH_MAX ? changed.subarray(0, LENGTH_MAX) : changed;
}

function changeOnce(bytes: Uint8Array, random: SeededRandom, other: Uint8Array): Uint8Array {
  const at = random.below(bytes.length + 1);
  const length = Math.min(1 << random.below(10), bytes.length - at);
  switch (random.below(10)) {
    case 0:
      return splice(bytes, at, length, new Uint8Array(0));
    case 1:
      return splice(bytes, at, 0, random.bytes(1 + random.below(16)));
    case 2:
      return splice(bytes, at, 0, bytes.subarray(at, at + length));
    case 3: {
      const from = random.below(other.length + 1);
      return splice(bytes, at, random.below(length + 1), other.subarray(from, from + 512));
    }
    case 4:
      return splice(bytes, at, Math.min(random.below(4), length), Buffer.from(pick(TEXTS, random)));
    case 5:
      return bytes.subarray(0, at);
    case 6:
    case 7:
      return number(bytes, at, random);
    default:
      if (at < bytes.length)
        bytes[at] = random.chance(0.5)
          ? random.below(256)
          : (bytes[at] ?? 0) ^ (1 << random.below(8));
      return bytes;
  }
}

/** JSON with one of its values replaced by something else; undefined when the bytes are none. */
function changeDocument(bytes: Uint8Array, random: SeededRandom): Uint8Array | undefined {
  if (bytes[0] !== 0x7b) return undefined;
  let document: unknown;
  try {
    document = JSON.parse(Buffer.from(bytes).toString('utf8'));
  } catch {
    return undefined;
  }
  const places: { holder: Record<string, unknown>; key: string }[] = [];
  const visit = (value: unknown) => {
    if (typeof value !== 'object' || value === null) return;
    for (const key of Object.keys(value)) {
      places.push({ holder: value as Record<string, unknown>, key });
      visit((value as Record<string, unknown>)[key]);
    }
  };
  visit(document);
  const place = places[random.below(places.length)];
  if (place === undefined) return undefined;
  const other = pick(places, random);
  if (random.chance(0.2)) delete place.holder[place.key];
  // A copy: a value that is put into itself would have no end.
  else if (random.chance(0.3)) place.holder[place.key] = structuredClone(other.holder[other.key]);
  else place.holder[place.key] = pick(VALUES, random);
  return Buffer.from(JSON.stringify(document));
}

/** An integer of 1, 2, 4 or 8 bytes, at an edge or one beside it, in either order. */
function number(bytes: Uint8Array, at: number, random: SeededRandom): Uint8Array {
  const size = 1 << random.below(4);
  if (at + size > bytes.length) return bytes;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const little = random.chance(0.8);
  const value = pick(random.chance(0.7) ? EDGES : LARGE, random) + random.below(3) - 1;
  if (size === 1) view.setUint8(at, value);
  else if (size === 2) view.setUint16(at, value, little);
  else if (size === 4) view.setUint32(at, value, little);
  else view.setBigInt64(at, random.chance(0.3) ? -1n : BigInt(value), little);
  return bytes;
}

function splice(bytes: Uint8Array, at: number, removed: number, put: Uint8Array): Uint8Array {
  const result = new Uint8Array(bytes.length - removed + put.length);
  result.set(bytes.subarray(0, at));
  result.set(put, at);
  result.set(bytes.subarray(at + removed), at + put.length);
  return result;
}

function pick<T>(list: readonly T[], random: SeededRandom): T {
  return list[random.below(list.length)] as T;
}
