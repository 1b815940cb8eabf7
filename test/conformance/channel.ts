import { describe, expect, test } from 'vitest';
import type { ChannelErrorCode } from '../../platform/channelErrors.ts';
import type { Channel } from '../../platform/ports.ts';

/** More than any window and every buffer on the way hold together. */
const FLOOD = 64 << 20;
/** A sender that got no further for so long is held back. */
const STALL_MS = 250;

/** What every Channel must do at both of its ends. Called inside a `describe`; each test has a channel of its own. */
export function channelConformance(open: () => Promise<{ near: Channel; far: Channel }>): void {
  describe('what is sent', () => {
    test('arrives whole and in order, whatever the parts it was written in', async () => {
      const { near, far } = await open();
      const sent = pattern(300_000);
      const writes: Promise<void>[] = [];
      for (let at = 0, size = 1; at < sent.length; at += size, size = (size * 3) % 7_919) {
        const end = Math.min(at + size, sent.length);
        const middle = at + ((end - at) >> 1);
        writes.push(near.write([sent.subarray(at, middle), sent.subarray(middle, end)]));
      }
      expect((await readExactly(far, sent.length)).equals(sent)).toBe(true);
      await Promise.all(writes);
    });

    test('arrives in both directions at once, however much it is', async () => {
      const { near, far } = await open();
      const sent = pattern(5_000_000);
      const back = Buffer.from(sent).reverse();
      const [there, here] = await Promise.all([
        readExactly(far, sent.length),
        readExactly(near, back.length),
        near.write([sent.subarray(0, 7), sent.subarray(7)]),
        far.write([back]),
      ]);
      expect([there.equals(sent), here.equals(back)]).toEqual([true, true]);
    });

    test('may be nothing, of which nobody hears', async () => {
      const { near, far } = await open();
      await near.write([]);
      await near.write([new Uint8Array(0)]);
      await near.write([new Uint8Array(0), text('word'), new Uint8Array(0)]);
      expect(String(await readExactly(far, 4))).toBe('word');
    });

    test('is no longer looked at once the write has ended: the memory may be used again', async () => {
      const { near, far } = await open();
      const reading = readExactly(far, 40 * 10_000);
      const memory = Buffer.alloc(10_000);
      for (let round = 0; round < 40; round += 1) await near.write([memory.fill(round)]);
      memory.fill(99);
      const read = await reading;
      for (let round = 0; round < 40; round += 1)
        expect([read[round * 10_000], read[round * 10_000 + 9_999]]).toEqual([round, round]);
    });

    test('waits for the reader: neither end holds more than a bounded amount', async () => {
      const { near, far } = await open();
      const piece = new Uint8Array(1 << 20);
      let taken = 0;
      const sending = (async () => {
        for (; taken < FLOOD; taken += piece.length) await near.write([piece]);
      })();
      await stalled(() => taken);
      expect(taken).toBeLessThan(FLOOD / 2);
      for (let read = 0; read < FLOOD; ) {
        read += (await far.read())?.length ?? Number.NaN;
        expect(taken - read).toBeLessThan(FLOOD / 2);
      }
      await sending;
    });
  });

  describe('an orderly end', () => {
    test('comes after all that was written before, and lasts', async () => {
      const { near, far } = await open();
      const sent = pattern(200_000);
      const writing = near.write([sent]);
      const closing = near.close();
      expect((await readExactly(far, sent.length)).equals(sent)).toBe(true);
      expect(await far.read()).toBeUndefined();
      expect(await far.read()).toBeUndefined();
      await Promise.all([writing, closing]);
    });

    test('ends what we were waiting for: nothing more is sent or heard', async () => {
      const { near, far } = await open();
      const reading = expectCode(near.read(), 'ChannelClosed');
      const closing = near.close();
      await reading;
      await far.write([text('unheard')]).catch(() => undefined);
      await expectCode(near.write([text('x')]), 'ChannelClosed');
      await expectCode(near.read(), 'ChannelClosed');
      await closing;
      await near.close();
      expect(await far.read()).toBeUndefined();
      near.destroy();
      await near.close();
    });

    test('by both sides at once is one too', async () => {
      const { near, far } = await open();
      await Promise.all([near.close(), far.close()]);
      await expectCode(near.read(), 'ChannelClosed');
      await expectCode(far.read(), 'ChannelClosed');
    });

    test('of the peer’s leaves nobody to send to', async () => {
      const { near, far } = await open();
      void far.close();
      expect(await near.read()).toBeUndefined();
      await expectCode(near.write([text('x')]), 'ConnectionLost');
      await near.close();
    });

    test('tells a peer that was still sending the last words, and lets it go', async () => {
      const { near, far } = await open();
      const { all, taken } = flood(near);
      await far.read();
      // Until every buffer on the way is full of what we will never read.
      await stalled(taken);
      void far.write([text('go away')]);
      const closing = far.close();
      expect(String(await readExactly(near, 7))).toBe('go away');
      expect(await near.read()).toBeUndefined();
      await Promise.all([all, closing]);
    });

    test('holds up no peer that has not heard of it yet', async () => {
      const { near, far } = await open();
      const closing = far.close();
      await flood(near).all;
      expect(await near.read()).toBeUndefined();
      await Promise.all([near.close(), closing]);
    });

    test('waits some seconds, no more, for a peer that takes nothing', async () => {
      const { near, far } = await open();
      const { last } = flood(near);
      const flooding = expect(last).rejects.toMatchObject({ name: 'ChannelError' });
      await far.read();
      await near.close();
      await flooding;
      await untilEnd(far);
    });
  });

  describe('an abrupt end', () => {
    test('by us ends what we were waiting for', async () => {
      const { near } = await open();
      const reading = expectCode(near.read(), 'ChannelClosed');
      const { last } = flood(near);
      const writing = expect(last).rejects.toMatchObject({ name: 'ChannelError' });
      near.destroy();
      await Promise.all([reading, writing]);
      near.destroy();
      await near.close();
      await expectCode(near.write([text('x')]), 'ChannelClosed');
      await expectCode(near.read(), 'ChannelClosed');
    });

    test('by the peer ends what we were sending', async () => {
      const { near, far } = await open();
      const { last } = flood(near);
      const flooding = expectCode(last, 'ConnectionLost');
      await far.read();
      far.destroy();
      await flooding;
      await expectCode(near.read(), 'ConnectionLost');
      await expectCode(near.write([text('x')]), 'ConnectionLost');
      await near.close();
    });

    test('by a peer that had read all looks like an orderly one', async () => {
      const { near, far } = await open();
      await near.write([text('word')]);
      await readExactly(far, 4);
      const reading = near.read();
      far.destroy();
      // Its kernel says no more than that nothing comes, and TLS in Node tells nobody whether the peer said so too.
      expect(await reading).toBeUndefined();
      await expectCode(near.write([text('x')]), 'ConnectionLost');
      near.destroy();
    });
  });
}

/** More than the channel takes, in pieces that nobody waits for. */
function flood(channel: Channel) {
  const piece = new Uint8Array(1 << 20);
  let taken = 0;
  const writes = Array.from({ length: FLOOD / piece.length }, async () => {
    await channel.write([piece]);
    taken += piece.length;
  });
  return { last: writes.at(-1), all: Promise.allSettled(writes), taken: () => taken };
}

async function expectCode(
  call: Promise<unknown> | undefined,
  code: ChannelErrorCode,
): Promise<void> {
  await expect(call).rejects.toMatchObject({ name: 'ChannelError', code });
}

async function readExactly(channel: Channel, count: number): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for (let have = 0; have < count; ) {
    const chunk = await channel.read();
    if (chunk === undefined) throw new Error(`ended after ${have} of ${count} bytes`);
    expect(chunk.length).toBeGreaterThan(0);
    chunks.push(chunk);
    have += chunk.length;
  }
  return Buffer.concat(
    chunks,
    Math.max(
      count,
      chunks.reduce((sum, { length }) => sum + length, 0),
    ),
  );
}

/** Reads what there is, until the channel ends in whatever way. */
async function untilEnd(channel: Channel): Promise<void> {
  try {
    while ((await channel.read()) !== undefined);
  } catch (error) {
    expect(error).toMatchObject({ code: 'ConnectionLost' });
  }
}

async function stalled(progress: () => number): Promise<void> {
  for (let before = -1; before !== progress(); ) {
    before = progress();
    await new Promise((resolve) => setTimeout(resolve, STALL_MS));
  }
}

function pattern(size: number): Buffer {
  const out = Buffer.alloc(size);
  for (let index = 0; index < size; index += 1) out[index] = (index * 31 + (index >> 8)) & 0xff;
  return out;
}

function text(words: string): Uint8Array {
  return new TextEncoder().encode(words);
}
