/**
 * A real API server, operator process, Azurite and ARM emulator around source machines that are made up: their journals are real, but
 * neither agent nor process server writes them. For what happens to a failover, many times over and without waiting for disks.
 */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { decodeKeyFile } from '../../cli/keyFile.ts';
import { type Failover, farshoreTypes, type ProtectedVM } from '../../crds/index.ts';
import { readPoints } from '../../dataplane/journal/points.ts';
import { Replica } from '../../dataplane/journal/replica.ts';
import { type Cloud, startCloud } from '../../hack/demonstration/cloud.ts';
import { startOperator } from '../../hack/demonstration/farshore.ts';
import {
  applyMachine,
  applySite,
  type FailoverWish,
  failoverManifest,
  installCrds,
  makeRecoveryKey,
  NAMESPACE,
  PROCESS_SERVER,
  type Site,
  VAULT,
} from '../../hack/demonstration/manifests.ts';
import type { Running } from '../../hack/demonstration/process.ts';
import { tail } from '../../hack/demonstration/process.ts';
import { openVaultStores, type VaultStores } from '../../platform/azure/vaultStores.ts';
import { connectKubernetes, type HttpKubeClient } from '../../platform/kube/client.ts';
import type { KubeObject } from '../../platform/kubernetes.ts';
import { systemClock } from '../../platform/node/clock.ts';
import { systemRandom } from '../../platform/node/random.ts';
import { Catalog } from '../../vault/catalog.ts';
import type { CatalogDocument } from '../../vault/documents/catalog.ts';
import type { FailoverDocument } from '../../vault/documents/failover.ts';
import type { MachineStatus } from '../../vault/documents/machineStatus.ts';
import { openDataKey } from '../../vault/keys.ts';
import { LedgerEntry } from '../../vault/ledger.ts';
import { requireVault } from '../../vault/vault.ts';
import type { LoggedCall } from '../arm/callLog.ts';
import type { ExistingResource } from '../arm/emulator.ts';
import { emulatorDefaults, startEmulator } from '../arm/emulator.ts';
import { silentLogger } from '../fakes/silentLogger.ts';
import { ModelMachine } from '../fixtures/modelMachine.ts';
import { machineReport, reportStatus } from '../operator/peers.ts';
import { startFaultProxy } from '../servers/faultProxy.ts';
import { eventually, freePort, type Workplace } from './workplace.ts';

export const PATIENCE_MS = 60_000;
const HEARTBEAT_MS = 1_000;
const MIB = 1 << 20;
const world = { clock: systemClock, random: systemRandom };

/** Something that the operator asked for has happened; its answer waits until the promise resolves. */
export interface Moments {
  armCall(call: LoggedCall): Promise<void>;
  /** A document under control/failovers was written. */
  ledgerWrite(name: string): Promise<void>;
}

export class ModelSite {
  readonly cloud: Cloud;
  readonly stores: VaultStores;
  readonly kube: HttpKubeClient;
  readonly site: Site;
  /** The whole file that keygen wrote. */
  readonly recoveryKey: string;
  readonly #workplace: Workplace;
  readonly #machines = new Map<string, { model: ModelMachine; report: Partial<MachineStatus> }>();
  operator: Running;

  private constructor(parts: {
    workplace: Workplace;
    site: Site;
    stores: VaultStores;
    kube: HttpKubeClient;
    recoveryKey: string;
  }) {
    this.#workplace = parts.workplace;
    this.site = parts.site;
    this.cloud = parts.site.cloud;
    this.stores = parts.stores;
    this.kube = parts.kube;
    this.recoveryKey = parts.recoveryKey;
    this.operator = this.startOperator();
  }

  /** With a vault that is ready, and no machine yet. */
  static async start(workplace: Workplace, moments?: Moments): Promise<ModelSite> {
    const { folder, undo } = workplace;
    const cloud = await startCloud({
      folder,
      undo,
      settings: { bootMachines: false, keepImported: false },
      startArm: async (options) => {
        const emulator = await startEmulator({
          ...options,
          onCall: async (call) => await moments?.armCall(call),
        });
        const { url, ca, control } = emulator;
        const { subscriptionId = '' } = options;
        const { tenantId, clientId, clientSecret } = emulatorDefaults;
        return {
          ...{ tenantId, clientId, clientSecret },
          url,
          ca,
          control,
          subscriptionId,
          stop: () => emulator.close(),
        };
      },
      front: async (azurite) => {
        const proxy = await startFaultProxy({ target: azurite.blobEndpoint });
        undo.add('stop the proxy', () => proxy.stop());
        proxy.decide = ({ method, url }) => {
          const name = /\/control\/failovers\/([^/?]+)\.json/.exec(decodeURIComponent(url))?.[1];
          return method === 'PUT' && name !== undefined && moments !== undefined
            ? { afterEffect: () => moments.ledgerWrite(name) }
            : 'pass';
        };
        const origin = new URL(azurite.blobEndpoint).origin;
        return {
          ...azurite,
          blobEndpoint: azurite.blobEndpoint.replace(origin, proxy.origin),
          connectionString: azurite.connectionString.replace(origin, proxy.origin),
        };
      },
    });
    installCrds(cloud);
    const keyFile = path.join(folder, 'recovery.key');
    const recoveryRecipient = makeRecoveryKey(keyFile);
    const site = {
      ...{ cloud, recoveryRecipient, passphrase: 'not used by a made-up machine' },
      processServerPort: await freePort(),
    };
    applySite(site);
    const kube = connectKubernetes({ kubeconfig: cloud.kubernetes.kubeconfigPath });
    undo.add('close the connection to Kubernetes', () => kube.close());
    const stores = openVaultStores(world, {
      connectionString: cloud.azurite.connectionString,
      container: cloud.container,
    });
    const recoveryKey = readFileSync(keyFile, 'utf8');
    const made = new ModelSite({ workplace, site, stores, kube, recoveryKey });
    await made.#untilReady();
    made.#beat();
    return made;
  }

  /** A process server is heard of again and again: what it said once is no news for long. */
  #beat(): void {
    const ending = new AbortController();
    const beating = (async () => {
      while (!ending.signal.aborted) {
        await this.report().catch(() => undefined);
        await systemClock.sleep(HEARTBEAT_MS, ending.signal).catch(() => undefined);
      }
    })();
    this.#workplace.undo.add('end the heartbeats', async () => {
      ending.abort(new Error('the test has ended'));
      await beating;
    });
  }

  /** As it would be restarted after a crash: another process, and the same cluster unless another is given. */
  startOperator(
    options: { cloud?: Pick<Cloud, 'kubernetes'>; leaderElect?: boolean } = {},
  ): Running {
    const { cloud = this.cloud, leaderElect = false } = options;
    const quick = ['--poll-seconds', '1', '--azure-poll-ms', '100'];
    const flags = leaderElect ? quick : [...quick, '--no-leader-elect'];
    return startOperator(cloud, { ...this.#workplace, metricsPort: 0 }, { flags });
  }

  /** A protected machine whose disks are in the vault as of one barrier. */
  async addMachine(
    name: string,
    options: {
      disksMiB?: readonly number[];
      target?: Partial<ProtectedVM['spec']['target']>;
    } = {},
  ): Promise<ModelMachine> {
    const sizes = options.disksMiB ?? [1, 2];
    const disks = sizes.map((_, index) => ({
      name: index === 0 ? 'system' : `data${index}`,
      device: `/dev/sd${index}`,
    }));
    applyMachine(this.cloud, disks, {
      name,
      ...(options.target === undefined ? {} : { target: options.target }),
    });
    const first = await this.#catalogOf(name, () => true);
    const reported = sizes.map((size, index) => ({ index, sizeBytes: size * MIB }));
    // Disks that are only said to be large are never written.
    const model = new ModelMachine(
      { ...world, objects: this.stores.objects },
      {
        name,
        machineId: first.machineId,
        dataKey: await this.#dataKey(first),
        diskBytes: sizes.map((size) => Math.min(size, 64) * MIB),
      },
    );
    this.#machines.set(name, { model, report: { disks: reported } });
    await this.report();
    await this.#catalogOf(name, (catalog) => catalog.disks.every((disk) => disk.sizeBytes > 0));
    model.scribble();
    const { lsn, timeMs } = await model.barrier();
    await this.report(name, { uploadedBarrier: { lsn, timeMs, consistency: 'Crash' } });
    await this.machineHas(name, 'RecoveryPointCurrent', 'True');
    return model;
  }

  /** What the process server says of its machines; a change for one of them stays. */
  async report(name?: string, change: Partial<MachineStatus> = {}): Promise<void> {
    const one = name === undefined ? undefined : this.#machines.get(name);
    if (one !== undefined) Object.assign(one.report, change);
    await reportStatus(
      this.stores.objects,
      PROCESS_SERVER,
      [...this.#machines.values()].map(({ model, report }) =>
        machineReport(model.machineId, report),
      ),
    );
  }

  /** Agent and process server in one: asked for a planned failover's last barrier, they deliver it and power the machine off. */
  async deliverFinalBarrier(name: string, failover: string): Promise<void> {
    await this.#catalogOf(name, (catalog) => catalog.finalSync?.failover === failover);
    const model = this.#model(name);
    model.scribble();
    const { lsn, timeMs } = await model.barrier();
    await this.report(name, {
      uploadedBarrier: { lsn, timeMs, consistency: 'Crash' },
      finalBarrier: { failover, lsn, poweredOff: true },
    });
  }

  /** In the applier's place: every barrier so far becomes what a point may be made of. Returns the points, oldest first. */
  async applyPoints(name: string): Promise<bigint[]> {
    const catalog = await this.#catalogOf(name, () => true);
    const { machineId, disks } = catalog;
    const replica = await Replica.open(
      { ...world, ...this.stores, logger: silentLogger },
      { machineId, disks, dataKey: await this.#dataKey(catalog), holder: 'test' },
    );
    try {
      await replica.applyTo('end', { makePoints: true, signal: new AbortController().signal });
    } finally {
      await replica.close();
    }
    const points = await readPoints(this.stores.objects, machineId);
    return points.map((point) => point.lsn).sort((a, b) => Number(a - b));
  }

  async createFailover(wish: FailoverWish & { machine: string }): Promise<void> {
    const spec = { recoveryPoint: { type: 'Latest' as const }, ...wish.spec };
    const manifest = failoverManifest({ ...wish, spec });
    await this.kube.create(farshoreTypes.failover, manifest as unknown as KubeObject);
  }

  async failover(name: string): Promise<Failover | undefined> {
    return await this.kube.get<Failover>(farshoreTypes.failover, { namespace: NAMESPACE, name });
  }

  async desire(name: string, desiredState: 'Committed' | 'CleanedUp'): Promise<void> {
    await this.kube.patch(
      farshoreTypes.failover,
      { namespace: NAMESPACE, name },
      { merge: { spec: { desiredState } } },
    );
  }

  /** The vault's truth about a failover. */
  async ledger(name: string): Promise<FailoverDocument | undefined> {
    return (await LedgerEntry.read(this.stores.objects, name))?.document;
  }

  async untilOutcome(
    name: string,
    outcome: FailoverDocument['outcome'],
    timeoutMs = PATIENCE_MS,
  ): Promise<FailoverDocument> {
    const found = await eventually({ what: `${name}: ${outcome}`, timeoutMs }, async () => {
      const document = await this.ledger(name);
      const resource = document === undefined ? await this.failover(name) : undefined;
      const ended = document?.outcome === 'Failed' || resource?.status?.phase === 'Rejected';
      return document?.outcome === outcome || ended ? { document, resource } : undefined;
    }).catch(async (error: unknown) => {
      const { outcome: is, steps } = (await this.ledger(name)) ?? {};
      const said = tail(this.operator, 30);
      throw new Error(
        `${error instanceof Error ? error.message : error}; it is ${is}: ${JSON.stringify(steps?.slice(-2))}\n${said}`,
      );
    });
    const { document, resource } = found;
    if (document?.outcome === outcome) return document;
    const why = document?.failure ?? resource?.status?.conditions;
    throw new Error(`${name} did not come to ${outcome}: ${JSON.stringify(why)}`);
  }

  /** Waits for a condition of the Failover (for a reason, when one is given), and returns its reason and message. */
  async failoverHas(
    name: string,
    type: string,
    status: string,
    reason?: string,
  ): Promise<{ reason: string; message: string }> {
    return await this.#condition(() => this.failover(name), { type, status, reason, of: name });
  }

  async machineHas(
    name: string,
    type: string,
    status: string,
  ): Promise<{ reason: string; message: string }> {
    const look = async () =>
      await this.kube.get<ProtectedVM>(farshoreTypes.protectedVM, { namespace: NAMESPACE, name });
    return await this.#condition(look, { type, status, of: name });
  }

  /** What exists in Azure because of this failover. */
  async madeBy(failover: string): Promise<ExistingResource[]> {
    const all = await this.cloud.arm.control.resources();
    return all.filter((one) => one.tags['farshore-failover-name'] === failover);
  }

  /** Keys in the vault that must not outlive a failover: copies of disks, pins of points. */
  async temporaryKeys(failover: string, machineId: string): Promise<string[]> {
    const found: string[] = [];
    const { objects } = this.stores;
    for await (const { key } of objects.list(`failovers/${failover}/`)) found.push(key);
    for await (const { key } of objects.list(`points/${machineId}/`))
      if (key.endsWith('.pin')) found.push(key);
    return found;
  }

  async catalog(name: string): Promise<CatalogDocument> {
    return await this.#catalogOf(name, () => true);
  }

  #model(name: string): ModelMachine {
    const found = this.#machines.get(name);
    if (found === undefined) throw new Error(`no machine ${name}`);
    return found.model;
  }

  async #untilReady(): Promise<void> {
    await this.#condition(
      async () =>
        await this.kube.get(farshoreTypes.recoveryVault, { namespace: NAMESPACE, name: VAULT }),
      { type: 'Ready', status: 'True', of: VAULT },
    );
  }

  async #condition(
    look: () => Promise<Conditioned | undefined>,
    wanted: { of: string; type: string; status: string; reason?: string | undefined },
  ): Promise<{ reason: string; message: string }> {
    const { of, type, status, reason } = wanted;
    const what = `${of}: ${type}=${status}`;
    return await eventually({ what, timeoutMs: PATIENCE_MS }, async () => {
      const conditions = (await look())?.status?.conditions;
      const found = conditions?.find((one) => one.type === type);
      const asWanted = found?.status === status && (reason ?? found.reason) === found.reason;
      if (asWanted) return found;
      throw new Error(`it is ${found?.status} (${found?.reason}: ${found?.message})`);
    });
  }

  async #catalogOf(
    name: string,
    fits: (catalog: CatalogDocument) => boolean,
  ): Promise<CatalogDocument> {
    return await eventually(
      { what: `${name} in the catalog`, timeoutMs: PATIENCE_MS },
      async () => {
        const machine = await this.kube.get<ProtectedVM>(farshoreTypes.protectedVM, {
          namespace: NAMESPACE,
          name,
        });
        const machineId = machine?.status?.machineId;
        if (machineId === undefined) return undefined;
        const found = await new Catalog({ store: this.stores.objects }).read(machineId);
        return found !== undefined && fits(found.document) ? found.document : undefined;
      },
    );
  }

  /** With the recovery key, as somebody who has lost everything else would. */
  async #dataKey(catalog: CatalogDocument): Promise<Uint8Array> {
    const { document } = await requireVault(this.stores.objects);
    return openDataKey({
      sealed: catalog.dataKey,
      key: decodeKeyFile('recovery.key', this.recoveryKey).box,
      vaultId: document.vaultId,
      machineId: catalog.machineId,
    });
  }
}

type Conditioned = KubeObject & {
  status?: { conditions?: { type: string; status: string; reason: string; message: string }[] };
};
