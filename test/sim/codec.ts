/**
 * The codec of simulated segments: nothing is compressed or encrypted, but a chunk opens only under the key, header, number and place that
 * it was sealed with, and only if no bit of it changed.
 */
import { SegmentError } from '../../dataplane/journal/segment.ts';
import type { ChunkSeal, SegmentCodec } from '../../dataplane/journal/segmentCodec.ts';
import { createHash } from './cheapCrypto.ts';

// What is not replaced is the product's.
export * from '../../dataplane/journal/segmentCodec.ts';

/** As long as that of the real one. */
const TAG_SIZE = 16;

export const inlineCodec: SegmentCodec = {
  parallelism: 1,
  seal: async (seal, plain) => {
    const sealed = new Uint8Array(plain.length + TAG_SIZE);
    sealed.set(plain);
    sealed.set(tagOf(seal, plain), plain.length);
    return sealed;
  },
  open: async (seal, sealed, { plainLength, name }) => {
    const plain = sealed.subarray(0, Math.max(0, sealed.length - TAG_SIZE));
    const tag = sealed.subarray(plain.length);
    if (plain.length !== plainLength || Buffer.compare(tag, tagOf(seal, plain)) !== 0)
      throw new SegmentError(
        'SegmentKeyRefused',
        `Chunk ${seal.index} of segment ${name} does not open: the key is another one, or the bytes were changed.`,
      );
    return plain;
  },
};

function tagOf({ key, aad, index, last }: ChunkSeal, plain: Uint8Array): Uint8Array {
  const place = Uint8Array.of(index & 0xff, (index >> 8) & 0xff, last ? 1 : 0);
  const digest = createHash('sha256').update(key).update(aad).update(place).update(plain).digest();
  return digest.subarray(0, TAG_SIZE);
}
