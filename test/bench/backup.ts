/**
 * Initial replication against backup programs: a 70 % full disk (half of that text and binaries of this machine, half random) through agent
 * and process server into the journal in Azurite; by restic over its `rclone:` backend; by rclone; and its data as bare serial Put Blobs
 * of 64 MiB. All into the same Azurite. restic and rclone are measured where they are installed (`apt-get install restic rclone`), and
 * reach Azurite by rclone's `use_emulator` and `endpoint`. Rounds begin with another one each, and each has an Azurite of its own.
 */
import { execFileSync } from 'node:child_process';
import { Site, type SourceDisk } from '../fixtures/site.ts';
import { requireRoot } from '../integration/capture/machine.ts';
import { type Azurite, EMULATOR_ACCOUNT_NAME, startAzurite } from '../servers/azurite.ts';
import {
  type Benchmark,
  type BenchOptions,
  type Figure,
  median,
  settled,
  timed,
} from './benchmark.ts';
import { fillHalfAndHalf } from './content.ts';
import { firstBarrier } from './journalWatch.ts';
import { runProgram } from './program.ts';
import { putBlobs } from './putBlobs.ts';
import { startReplicating } from './replicating.ts';

const MIB = 1 << 20;
const FULL_SHARE = 0.7;
const DEADLINE_MS = 900_000;

/** Seconds that each took. Undefined: it is not installed. */
type BackupRound = Record<'bare' | 'farshore' | 'rclone' | 'restic', number | undefined>;
type Contestant = keyof BackupRound;
const CONTESTANTS: readonly Contestant[] = ['bare', 'farshore', 'rclone', 'restic'];

export const backup: Benchmark = async (options) => {
  requireRoot();
  const { rounds, tell } = options;
  const mib = options.mib ?? 4096;
  for (const program of ['rclone', 'restic'] as const)
    if (!isInstalled(program))
      tell(`${program} is not installed: NOT measured (apt-get install restic rclone)`);
  const done: BackupRound[] = [];
  for (let index = 0; index < rounds; index += 1) {
    const round = await runRound({ ...options, mib, index });
    const seconds = CONTESTANTS.map((name) => `${name} ${round[name]?.toFixed(1) ?? '–'} s`);
    tell(
      `round ${index + 1}, ${CONTESTANTS[index % CONTESTANTS.length]} first: ${seconds.join(', ')}`,
    );
    done.push(round);
  }
  return { rounds: done, figures: figures(done) };
};

function figures(done: readonly BackupRound[]): Figure[] {
  const middle = (name: Contestant) => median(done.map((round) => round[name] ?? Number.NaN));
  const farshore = middle('farshore');
  const found: Figure[] = CONTESTANTS.map((name) => ({
    label: name,
    value: middle(name),
    unit: 's',
  }));
  found.push(
    {
      label: 'against bare Put Blobs',
      value: middle('bare') / farshore,
      unit: '',
      goal: { least: 0.8 },
    },
    { label: 'against restic', value: middle('restic') / farshore, unit: '', goal: { least: 2.5 } },
    { label: 'against rclone', value: middle('rclone') / farshore, unit: '' },
  );
  return found.filter(({ value }) => !Number.isNaN(value));
}

async function runRound(
  options: BenchOptions & { mib: number; index: number },
): Promise<BackupRound> {
  const { cleanup, index } = options;
  const azurite = await startAzurite({ emulatorAccount: true });
  const end = cleanup.add(() => azurite.stop());
  try {
    const site = await Site.create({ azurite, container: 'vault' });
    const endSite = cleanup.add(() => site.end());
    try {
      const disk = site.disk('source', options.mib * MIB);
      const bytes = Math.floor(disk.sizeBytes * FULL_SHARE);
      fillHalfAndHalf(disk.image, bytes);
      const copies: Record<Contestant, () => Promise<number>> = {
        bare: () => putBlobs(azurite, { container: 'bare', image: disk.image, bytes }),
        farshore: () => replicate(site, disk),
        rclone: () => copyWithRclone(azurite, { disk, cleanup }),
        restic: () => backUpWithRestic(azurite, { disk, cleanup }),
      };
      const round: Partial<BackupRound> = {};
      for (let place = 0; place < CONTESTANTS.length; place += 1) {
        const name = CONTESTANTS[(index + place) % CONTESTANTS.length] as Contestant;
        round[name] = isInstalled(name) ? await settled(copies[name]) : undefined;
      }
      return round as BackupRound;
    } finally {
      await endSite();
    }
  } finally {
    await end();
  }
}

function isInstalled(name: Contestant): boolean {
  if (name === 'bare' || name === 'farshore') return true;
  try {
    execFileSync(name, ['version'], { stdio: 'ignore' });
    // restic reaches the store through rclone.
    return name === 'rclone' || isInstalled('rclone');
  } catch {
    return false;
  }
}

/** From the resync's begin until the first barrier is in the vault. */
async function replicate(site: Site, disk: SourceDisk): Promise<number> {
  const { agent, server, begunMs } = await startReplicating(site, { disks: [disk] });
  const { machineId } = site;
  const { seenMs } = await firstBarrier(site.stores.objects, { machineId, withinMs: DEADLINE_MS });
  await agent.kill('SIGTERM');
  await server.kill('SIGTERM');
  return (seenMs - begunMs) / 1000;
}

interface Copy {
  disk: SourceDisk;
  cleanup: BenchOptions['cleanup'];
}

async function copyWithRclone(azurite: Azurite, { disk, cleanup }: Copy): Promise<number> {
  const env = rcloneRemote(azurite);
  const run = (args: string[]) => runProgram('rclone', args, { cleanup, env });
  await run(['mkdir', 'azurite:rclone']);
  const { seconds } = await timed(() => run(['copyto', disk.image, 'azurite:rclone/disk']));
  return seconds;
}

async function backUpWithRestic(azurite: Azurite, { disk, cleanup }: Copy): Promise<number> {
  const env = { ...rcloneRemote(azurite), RESTIC_PASSWORD: 'benchmark' };
  const run = (args: string[]) =>
    runProgram('restic', ['--repo', 'rclone:azurite:restic', '--no-cache', ...args], {
      cleanup,
      env,
    });
  await run(['init']);
  const { seconds } = await timed(() => run(['backup', disk.image]));
  return seconds;
}

/** rclone's remote `azurite:`, without a configuration file. */
function rcloneRemote({ host, port }: Azurite): Record<string, string> {
  return {
    RCLONE_CONFIG: '/dev/null',
    RCLONE_CONFIG_AZURITE_TYPE: 'azureblob',
    RCLONE_CONFIG_AZURITE_USE_EMULATOR: 'true',
    RCLONE_CONFIG_AZURITE_ENDPOINT: `http://${host}:${port}/${EMULATOR_ACCOUNT_NAME}`,
  };
}
