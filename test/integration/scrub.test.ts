/** The scrub with its real processes: agent, process server, vault. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { Site } from '../fixtures/site.ts';
import { type Azurite, startAzurite } from '../servers/azurite.ts';
import { sh } from './capture/machine.ts';

const MIB = 1 << 20;

let azurite: Azurite;
let directory: string;
let site: Site;

beforeAll(async () => {
  directory = await mkdtemp(path.join(tmpdir(), 'farshore-scrub-vault-'));
  azurite = await startAzurite({ dir: directory });
});

afterAll(async () => {
  await azurite.stop();
  await rm(directory, { recursive: true, force: true });
});

beforeEach(async () => {
  site = await Site.create({ azurite, container: 'scrub' });
});

afterEach(async () => {
  await site.end();
});

test('a write past the block layer ends in ResyncRequired(TrackingLost), and the next point is the disk as it is', async () => {
  const disk = site.disk('quiet', 32 * MIB + 512);
  const mount = site.machine.mount(disk.device);
  sh(
    `dd if=/dev/urandom of=${mount}/before bs=1M count=12 oflag=direct status=none; sync -f ${mount}`,
  );
  await site.startServer();
  await site.assign([disk]);
  // Ten seconds.
  const agent = await site.startAgent({ args: ['--scrub-days', '0.000116'] });
  await site.nextBarrier();
  const quiet = await agent.logged('The scrub found no write unseen');
  expect(quiet.leavesCompared).toBeGreaterThan(400);
  expect(agent.log.filter(({ msg }) => msg === 'Tracking is lost')).toEqual([]);

  // A block of the file in the middle of the disk.
  const extent = sh(`filefrag -b512 -e ${mount}/before | awk -F'[ .:]+' '$2 == 0 { print $5 }'`);
  const sector = Number(extent) + 4096;
  sh(
    `dd if=/dev/urandom of=${disk.image} bs=512 seek=${sector} count=1 conv=notrunc,fsync status=none`,
  );
  await site.statusWhen(
    'the resync has ended',
    ({ lastResync }) => lastResync?.reason === 'TrackingLost',
    { withinMs: 80_000 },
  );
  expect(await agent.logged('Tracking is lost')).toMatchObject({
    code: 'TrackingLost',
    error: {
      message: expect.stringContaining(`leaf ${Math.floor(sector / 128)} of ${disk.device}`),
    },
  });
  await site.nextBarrier();
  const { finalBarrier } = await site.finalBarrier([disk]);
  const points = await site.makePoints([disk]);
  const last = points.at(-1);
  if (last === undefined) throw new Error('no point was made');
  expect(last.lsn).toBe(finalBarrier?.lsn);
  const [image] = await site.download(last, 'final');
  sh(`cmp ${disk.image} ${image}`);
});
