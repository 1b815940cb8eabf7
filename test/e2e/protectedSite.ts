/** The whole chain on real parts: a loop machine under a workload, agent, process server, applier, operator, and the cloud's stand-ins. */
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import type { Failover } from '../../crds/index.ts';
import { readPoints } from '../../dataplane/journal/points.ts';
import { type Cloud, startCloud } from '../../hack/demonstration/cloud.ts';
import {
  startAgent,
  startApplier,
  startOperator,
  startProcessServer,
} from '../../hack/demonstration/farshore.ts';
import {
  apply,
  applyMachine,
  applySite,
  type FailoverWish,
  failoverManifest,
  installCrds,
  MACHINE,
  makeRecoveryKey,
  PROCESS_SERVER,
  type Site,
  secretValue,
  VAULT,
} from '../../hack/demonstration/manifests.ts';
import type { Running } from '../../hack/demonstration/process.ts';
import { tail } from '../../hack/demonstration/process.ts';
import { type SourceMachine, startSource } from '../../hack/demonstration/source.ts';
import { getObject, isTrue } from '../../hack/demonstration/watch.ts';
import { openVaultStores, type VaultStores } from '../../platform/azure/vaultStores.ts';
import { systemClock } from '../../platform/node/clock.ts';
import { systemRandom } from '../../platform/node/random.ts';
import type { PointDocument } from '../../vault/documents/point.ts';
import type { EmulatorOptions } from '../arm/emulator.ts';
import { eventually, freePort, type Workplace } from './workplace.ts';

const PATIENCE_MS = 90_000;
/** Every look starts a kubectl, which takes from what it waits for as much of the processor as it may. */
const kubectlPace = { timeoutMs: PATIENCE_MS, everyMs: 500 };
export const OPERATOR_FLAGS = [
  '--no-leader-elect',
  '--poll-seconds',
  '1',
  '--azure-poll-ms',
  '200',
];

export interface ProtectedSite {
  cloud: Cloud;
  site: Site;
  /** The whole file that keygen wrote. */
  recoveryKey: string;
  source: SourceMachine;
  operator: Running;
  processServer: Running & { cache: string };
  applier: Running;
  agent: Running & { state: string; run: string };
  stores: VaultStores;
  machineId: string;
  /** Recovery points, oldest first. */
  points(): Promise<PointDocument[]>;
}

/** Resolves when the first recovery point is made, the workload still running. */
export async function startProtectedSite(
  workplace: Workplace,
  options: { settings?: EmulatorOptions['settings']; agentFlags?: readonly string[] } = {},
): Promise<ProtectedSite> {
  const { folder, logs, undo } = workplace;
  const cloud = await startCloud({
    ...{ folder, undo },
    ...(options.settings === undefined ? {} : { settings: options.settings }),
  });
  installCrds(cloud);
  const keyFile = path.join(folder, 'recovery.key');
  const site = {
    cloud,
    recoveryRecipient: makeRecoveryKey(keyFile),
    passphrase: randomBytes(18).toString('base64url'),
    processServerPort: await freePort(),
  };
  applySite(site);
  const operator = startOperator(
    cloud,
    { ...workplace, metricsPort: 0 },
    { flags: OPERATOR_FLAGS },
  );
  const building = startSource({
    ...{ folder: path.join(folder, 'source'), logs, undo },
    ...{ images: [], workload: undefined },
  });
  const bootstrap = await awaitBootstraps(cloud, operator);
  const processServer = startProcessServer(bootstrap.processServer, workplace);
  const applier = startApplier(bootstrap.applier, workplace);
  const source = await building;
  applyMachine(cloud, source.disks);
  const flags = options.agentFlags ?? [];
  const { passphrase, processServerPort: port } = site;
  const agent = startAgent({ passphrase, port, flags }, workplace);
  const stores = openVaultStores(
    { clock: systemClock, random: systemRandom },
    { connectionString: cloud.azurite.connectionString, container: cloud.container },
  );
  const parts = { cloud, site, source, operator, processServer, applier, agent, stores };
  const id = await eventually({ what: 'a machineId', ...kubectlPace }, () => {
    const machine = getObject<{ status?: { machineId?: string } }>(cloud, 'protectedvm', MACHINE);
    return machine?.status?.machineId;
  });
  const points = async () => await readPoints(stores.objects, id);
  await untilNewPoint(parts, { points, after: 0 });
  return { ...parts, recoveryKey: readFileSync(keyFile, 'utf8'), machineId: id, points };
}

/** Waits until there are more points than `after`. */
export async function untilNewPoint(
  parts: Pick<ProtectedSite, 'operator' | 'processServer' | 'applier' | 'agent'>,
  wait: { points: () => Promise<PointDocument[]>; after: number },
): Promise<void> {
  const { operator, processServer, applier, agent } = parts;
  await eventually(
    { what: 'a new recovery point', timeoutMs: PATIENCE_MS, everyMs: 300 },
    async () => ((await wait.points()).length > wait.after ? true : undefined),
  ).catch((error: unknown) => {
    const last = [operator, processServer, applier, agent].map(
      (one) => `-- ${one.name}\n${tail(one)}`,
    );
    throw new Error(`${error instanceof Error ? error.message : error}\n${last.join('\n')}`);
  });
}

/** As `kubectl apply -f` of the sample, changed. */
export function createFailover(cloud: Cloud, wish: FailoverWish): void {
  apply(cloud, [failoverManifest(wish)]);
}

/** Waits for the Failover's phase; rejects with its status when it came to another end than the one that it is `leaving`. */
export async function untilPhase(
  at: { cloud: Cloud; operator: Running },
  wanted: { failover: string; phase: string; leaving?: string; timeoutMs?: number },
): Promise<Failover> {
  const { failover, phase, leaving, timeoutMs = 120_000 } = wanted;
  const found = await eventually({ what: `${failover} ${phase}`, timeoutMs, everyMs: 500 }, () => {
    const seen = getObject<Failover>(at.cloud, 'failover', failover);
    const is = seen?.status?.phase ?? '';
    return is === phase || (is !== leaving && ENDS.has(is)) ? seen : undefined;
  }).catch((error: unknown) => {
    const status = getObject<Failover>(at.cloud, 'failover', failover)?.status;
    throw new Error(
      `${error instanceof Error ? error.message : error}; ${JSON.stringify(status)}\n${tail(at.operator, 30)}`,
    );
  });
  if (found.status?.phase !== phase)
    throw new Error(`${failover} came to ${JSON.stringify(found.status)}`);
  return found;
}

const ENDS: ReadonlySet<string> = new Set(['Failed', 'Rejected', 'Committed', 'CleanedUp']);

async function awaitBootstraps(
  cloud: Cloud,
  operator: Running,
): Promise<{ processServer: string; applier: string }> {
  return await eventually({ what: 'the bootstrap files', ...kubectlPace }, () => {
    if (!operator.alive()) throw new Error(tail(operator));
    if (!isTrue(getObject(cloud, 'recoveryvault', VAULT), 'Ready')) return undefined;
    const processServer = secretValue(cloud, `${PROCESS_SERVER}-bootstrap`, 'bootstrap.json');
    const applier = secretValue(cloud, `${VAULT}-applier-bootstrap`, 'bootstrap.json');
    return processServer && applier ? { processServer, applier } : undefined;
  });
}
