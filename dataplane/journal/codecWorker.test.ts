import { MessageChannel } from 'node:worker_threads';
import { expect, test } from 'vitest';
import { SeededRandom } from '../../test/fakes/seededRandom.ts';
import { handle } from './codecWorker.ts';
import { type ChunkSeal, sealChunk } from './segmentCodec.ts';

test('the result of a job of any size can be moved to another thread', () => {
  const random = new SeededRandom(1);
  const seal: ChunkSeal = { key: random.bytes(32), aad: random.bytes(32), index: 0, last: true };
  const { port1, port2 } = new MessageChannel();
  try {
    for (const size of [0, 1, 48, 4096, 5000, 16_384, 40_000, 70_000, 1 << 20]) {
      const plain = random.bytes(size);
      const sealed = sealChunk(seal, plain.slice());
      const opened = handle({
        do: 'open',
        seal,
        bytes: sealed,
        expected: { plainLength: size, name: 'segment' },
      });
      const bytes = 'bytes' in opened.result ? opened.result.bytes : undefined;
      expect(bytes !== undefined && Buffer.compare(bytes, plain) === 0).toBe(true);
      const resealed = handle({ do: 'seal', seal, bytes: plain });
      for (const { result, transfer } of [opened, resealed]) port1.postMessage(result, transfer);
    }
  } finally {
    port1.close();
    port2.close();
  }
});
