import { describe, expect, test } from 'vitest';
import { dataKey, JournalWorld, machineId } from '../../test/fakes/journalWorld.ts';
import { protectedMachine } from '../../test/fixtures/protectedMachine.ts';
import { vaultLayout } from '../../vault/layout.ts';
import { CHAIN_START } from './chain.ts';
import { claimJournal } from './claim.ts';
import { inlineCodec } from './segmentCodec.ts';

describe('reading the chain', () => {
  test('nothing past a gap is accepted', async () => {
    const world = new JournalWorld();
    const { cache, agent } = await protectedMachine(world);
    agent.scribble(1);
    await agent.barrier();
    await agent.uploaded();
    await cache.close();
    await world.objects.remove(vaultLayout.segment(machineId, 1));
    const seen: number[] = [];
    const read = async () => {
      for await (const segment of world.chain().segments(CHAIN_START))
        seen.push(segment.header.seq);
    };
    await expect(read()).rejects.toMatchObject({ code: 'ChainGap' });
    expect(seen).toEqual([0]);
  });

  test('a segment of another line is refused, and so is one that goes back in epoch', async () => {
    const world = new JournalWorld();
    const { cache } = await protectedMachine(world);
    await cache.close();
    const newest = (await world.chain().newest())?.position;
    if (newest === undefined) throw new Error('no journal');
    const next = async (after: typeof newest) => await world.chain().segments(after).next();
    const one = { ...newest, seq: newest.seq - 1 };
    await expect(next(one)).rejects.toMatchObject({ code: 'ChainBroken' });
    const header = (await world.chain().newest())?.header;
    const before = {
      seq: one.seq,
      digest: header?.previousDigest ?? '',
      lsn: (header?.firstLsn ?? 0n) - 1n,
    };
    await expect(next({ ...before, writerEpoch: 2 })).rejects.toMatchObject({
      code: 'ChainBroken',
    });
    await expect(next({ ...before, writerEpoch: 0 })).rejects.toThrow('without a claim');
    await expect(next({ ...before, writerEpoch: 1, sealed: true })).rejects.toThrow(
      'follows a seal',
    );
    await expect(next({ ...before, lsn: before.lsn - 1n })).rejects.toThrow('begins at LSN');
    expect((await next({ ...before, writerEpoch: 1 })).value?.header.seq).toBe(newest.seq);
  });

  test('the newest segment is found in a journal of any length, trimmed or not, in few requests', async () => {
    for (const { length, trimmed } of [
      { length: 1, trimmed: 0 },
      { length: 2, trimmed: 1 },
      { length: 37, trimmed: 0 },
      { length: 37, trimmed: 36 },
      { length: 64, trimmed: 20 },
    ]) {
      const world = new JournalWorld();
      const deps = { ...world, codec: inlineCodec };
      for (let epoch = 1; epoch <= length; epoch++)
        await claimJournal(deps, { machineId, dataKey, writerEpoch: epoch, side: 'Source' });
      for (let seq = 0; seq < trimmed; seq++)
        await world.objects.remove(vaultLayout.segment(machineId, seq));
      const asked = world.objects.log.length;
      expect((await world.chain().newest())?.position.seq).toBe(length - 1);
      expect(world.objects.log.length - asked).toBeLessThan(20);
      expect((await world.chain().newest({ from: length - 1 }))?.position.seq).toBe(length - 1);
      expect((await world.chain().newest({ from: 5 }))?.position.seq).toBe(length - 1);
    }
    expect(await new JournalWorld().chain().newest()).toBeUndefined();
  });
});
