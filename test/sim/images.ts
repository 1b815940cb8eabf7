import { type Image, LEAF } from './sourceDisk.ts';

const zeros = Buffer.alloc(LEAF);

/** The first byte at which a body (a disk, padded with zeros) differs from an image; undefined when it does not. */
export function compareImages(body: Uint8Array, image: Image): number | undefined {
  const leaves = Math.max(Math.ceil(body.length / LEAF), image.length);
  for (let leaf = 0; leaf < leaves; leaf += 1) {
    const part = body.subarray(leaf * LEAF, (leaf + 1) * LEAF);
    const expected = image[leaf] ?? zeros;
    if (part.length > 0 && Buffer.compare(part, expected.subarray(0, part.length)) === 0) {
      if (part.length === LEAF || isZero(expected.subarray(part.length))) continue;
      return leaf * LEAF + part.length;
    }
    if (part.length === 0 && isZero(expected)) continue;
    const at = part.findIndex((byte, index) => byte !== expected[index]);
    return leaf * LEAF + Math.max(0, at);
  }
  return undefined;
}

function isZero(bytes: Uint8Array): boolean {
  return Buffer.compare(bytes, zeros.subarray(0, bytes.length)) === 0;
}
