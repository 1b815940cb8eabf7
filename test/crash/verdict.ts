import { LEAF_SIZE } from '../../dataplane/journal/record.ts';
import { Life } from './life.ts';
import type { Moment } from './moment.ts';

/**
 * Judges how a process server comes back: it holds everything it acknowledged, finds nothing damaged that only broke off, uploads a
 * journal without a gap, and goes on to a right barrier. Throws an Error that says what is wrong.
 *
 * `onMoment` is told of the moments until it has opened and is at rest: where it may die again.
 */
export async function judge(
  moment: Moment,
  options: { seed: number; onMoment?: (moment: Moment) => void },
): Promise<void> {
  const { seed, onMoment } = options;
  const agent = moment.agent.copy();
  const life = new Life({
    ...{ disk: moment.disk, objects: moment.objects, writerEpoch: moment.writerEpoch },
    ...{ agent, seed, onMoment },
  });
  await life.open();
  const { journal, world } = life;
  const positions = journal.positions();
  holds(positions.journaledLsn >= moment.agent.acknowledgedLsn, 'it lost acknowledged records');
  holds(
    positions.lastBarrierLsn >= moment.agent.acknowledgedBarrierLsn,
    'it lost an acknowledged barrier',
  );
  if (agent.resyncAcknowledged)
    holds(!journal.resync().required, `it wants a resync (${JSON.stringify(journal.resync())})`);
  const alarms = world.logger.lines.filter(({ level }) => level === 'error');
  holds(alarms.length === 0, `it takes a crash for damage: ${JSON.stringify(alarms[0])}`);
  if (onMoment !== undefined) {
    await life.rest();
    onMoment(life.now('what comes next'));
    life.onMoment = undefined;
  }

  const same = await agent.sameLeaves();
  const source = agent.source.bytes.slice();
  await agent.resyncIfRequired();
  agent.write(1, 200);
  await agent.sendDirty();
  const barrier = await agent.barrier();
  holds(barrier.disks[0]?.root === agent.root(), 'the next barrier has a wrong root');
  await life.uploadAll();
  const replayed = await world.replayVault(source.length, positions.journaledLsn);
  const { disk: now, before: held, wrongBarriers } = replayed;
  holds(wrongBarriers.length === 0, `the roots of barriers ${wrongBarriers} are wrong`);
  holds(Buffer.compare(now, agent.source.bytes) === 0, 'the vault does not hold the source');
  const lost = moment.agent.lostOn(held);
  holds(lost.length === 0, `the blocks ${lost} are not as they were acknowledged`);
  for (const leaf of same)
    holds(
      Buffer.compare(leafOf(held, leaf), leafOf(source, leaf)) === 0,
      `leaf ${leaf} need not be sent, it said, and does not hold it`,
    );
  await life.close();
}

function leafOf(bytes: Uint8Array, leaf: number): Uint8Array {
  return bytes.subarray(leaf * LEAF_SIZE, (leaf + 1) * LEAF_SIZE);
}

function holds(condition: boolean, problem: string): void {
  if (!condition) throw new Error(problem);
}
