/**
 * A site with everything real but Azure: an API server, an operator that elects its leader, two process servers that are the replicas
 * of one resource, an applier, machines with their agents. Every data-plane process is in a network namespace of its own.
 */
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { decodeKeyFile } from '../../cli/keyFile.ts';
import type { ProtectedVM } from '../../crds/index.ts';
import { type Cloud, startCloud } from '../../hack/demonstration/cloud.ts';
import {
  startAgent,
  startApplier,
  startOperator,
  startProcessServer,
} from '../../hack/demonstration/farshore.ts';
import {
  applyMachine,
  applySite,
  installCrds,
  makeRecoveryKey,
  PROCESS_SERVER,
  secretValue,
  VAULT,
} from '../../hack/demonstration/manifests.ts';
import type { Running } from '../../hack/demonstration/process.ts';
import type { Undo } from '../../hack/demonstration/undo.ts';
import { getObject, isTrue } from '../../hack/demonstration/watch.ts';
import { openVaultStores, type VaultStores } from '../../platform/azure/vaultStores.ts';
import { systemClock } from '../../platform/node/clock.ts';
import { systemRandom } from '../../platform/node/random.ts';
import { Catalog } from '../../vault/catalog.ts';
import { openDataKey } from '../../vault/keys.ts';
import { requireVault } from '../../vault/vault.ts';
import { CacheVolume } from './cacheVolume.ts';
import { Part } from './part.ts';
import { SourceMachine } from './sourceMachine.ts';
import type { Patience } from './waiting.ts';
import { type Wire, Wires } from './wires.ts';

const AGENT_PORT = 9443;
const METRICS_PORT = 9444;
const START_MS = 120_000;
const CACHE_MIB = 384;
const world = { clock: systemClock, random: systemRandom };

export interface ProtectedMachine {
  name: string;
  machineId: string;
  dataKey: Uint8Array;
  source: SourceMachine;
  agent: Part;
  wire: Wire;
}

export interface Replica {
  name: string;
  part: Part;
  wire: Wire;
  volume: CacheVolume;
  metricsUrl: string;
}

export class EnduranceSite {
  readonly cloud: Cloud;
  /** A look at the vault past all faults but those of the vault itself. */
  readonly stores: VaultStores;
  readonly operator: Part;
  readonly applier: Part;
  readonly applierWire: Wire;
  readonly replicas: readonly Replica[];
  readonly machines: ProtectedMachine[] = [];
  readonly #place: { folder: string; logs: string; undo: Undo };
  readonly #wires: Wires;
  readonly #passphrase: string;
  readonly #patience: Patience;
  readonly #say: (line: string) => void;

  private constructor(parts: {
    cloud: Cloud;
    place: { folder: string; logs: string; undo: Undo };
    wires: Wires;
    passphrase: string;
    patience: Patience;
    say: (line: string) => void;
    ways: readonly Wire[];
  }) {
    const { cloud, place, wires, ways } = parts;
    this.cloud = cloud;
    this.#place = place;
    this.#wires = wires;
    this.#passphrase = parts.passphrase;
    this.#patience = parts.patience;
    this.#say = parts.say;
    this.stores = openVaultStores(world, {
      connectionString: cloud.azurite.connectionString,
      container: cloud.container,
      patience: { stallMs: 3_000, totalMs: 6_000 },
    });
    this.operator = this.#part('operator', () =>
      startOperator(cloud, { ...place, metricsPort: 0 }, { flags: ['--poll-seconds', '2'] }),
    );
    this.applierWire = wires.join();
    const { inside } = this.applierWire;
    this.applier = this.#part('applier', async () =>
      startApplier(await this.#bootstrap(`${VAULT}-applier`), place, { inside }),
    );
    this.replicas = ways.map((wire, index) => this.#replica(wire, `${PROCESS_SERVER}-${index}`));
  }

  /** With operator, process servers and applier, and no machine yet. */
  static async start(options: {
    folder: string;
    logs: string;
    undo: Undo;
    patience: Patience;
    say: (line: string) => void;
  }): Promise<EnduranceSite> {
    const { patience, say, ...place } = options;
    const { folder, undo } = place;
    const wires = Wires.lay(undo);
    say(`network ${wires.address}/24, namespaces ${wires.label}-*`);
    const ways = [wires.join(), wires.join()];
    const cloud = await startCloud({ folder, undo, storageHost: wires.address });
    patience.signal.throwIfAborted();
    installCrds(cloud);
    const passphrase = randomBytes(18).toString('base64url');
    applySite({
      ...{ cloud, passphrase },
      recoveryRecipient: makeRecoveryKey(path.join(folder, 'recovery.key')),
      processServerPort: AGENT_PORT,
      replicas: ways.map(({ address }) => `${address}:${AGENT_PORT}`),
    });
    const site = new EnduranceSite({ cloud, place, wires, passphrase, patience, say, ways });
    await site.operator.up();
    await patience.until('the vault is ready', START_MS, () =>
      isTrue(getObject(cloud, 'recoveryvault', VAULT), 'Ready') ? true : undefined,
    );
    await Promise.all([...site.replicas.map(({ part }) => part.up()), site.applier.up()]);
    return site;
  }

  /** A machine with filesystems on its disks and an agent, which knows the first replica alone. */
  async addMachine(name: string, disksMiB: readonly number[]): Promise<ProtectedMachine> {
    const folder = path.join(this.#place.folder, name);
    const place = { ...this.#place, folder };
    const source = await SourceMachine.make({ ...place, name, disksMiB });
    applyMachine(this.cloud, source.disks, { name });
    const machineId = await this.#patience.until(`${name} is accepted`, START_MS, () => {
      const found = getObject<ProtectedVM>(this.cloud, 'protectedvm', name);
      return isTrue(found, 'Accepted') ? found?.status?.machineId : undefined;
    });
    const wire = this.#wires.join();
    const host = this.replicas[0]?.wire.address ?? '';
    const enrolment = { passphrase: this.#passphrase, port: AGENT_PORT, host };
    const agent = this.#part(`agent-${name}`, () =>
      startAgent({ ...enrolment, name, inside: wire.inside }, place),
    );
    const machine = {
      ...{ name, machineId, source, wire, agent },
      dataKey: await this.#dataKeyOf(machineId),
    };
    this.machines.push(machine);
    await agent.up();
    this.#say(
      `${name} is machine ${machineId}, on ${source.disks.map((one) => one.device).join(' and ')}`,
    );
    return machine;
  }

  get parts(): Part[] {
    return [
      ...this.machines.map(({ agent }) => agent),
      ...this.replicas.map(({ part }) => part),
      this.applier,
      this.operator,
    ];
  }

  #part(name: string, start: () => Running | Promise<Running>): Part {
    return new Part(name, { start, signal: this.#patience.signal });
  }

  #replica(wire: Wire, name: string): Replica {
    const volume = new CacheVolume({ ...this.#place, name, mib: CACHE_MIB });
    const part = this.#part(name, async () => {
      // As a pod that starts: with the file that the Secret holds now.
      const bootstrap = await this.#bootstrap(name);
      const cache = volume.directory;
      const options = { name, cache, metricsPort: METRICS_PORT, inside: wire.inside };
      return startProcessServer(bootstrap, this.#place, options);
    });
    const metricsUrl = `http://${wire.address}:${METRICS_PORT}/metrics`;
    return { name, part, wire, volume, metricsUrl };
  }

  async #bootstrap(of: string): Promise<string> {
    return await this.#patience.until(`the bootstrap file of ${of}`, START_MS, () =>
      secretValue(this.cloud, `${of}-bootstrap`, 'bootstrap.json'),
    );
  }

  /** With the recovery key: nothing of the site vouches for what is compared. */
  async #dataKeyOf(machineId: string): Promise<Uint8Array> {
    const { objects } = this.stores;
    const { document: vault } = await requireVault(objects);
    const catalog = await new Catalog({ store: objects }).read(machineId);
    if (catalog === undefined) throw new Error(`machine ${machineId} is not in the catalog`);
    const keyFile = readFileSync(path.join(this.#place.folder, 'recovery.key'), 'utf8');
    return openDataKey({
      sealed: catalog.document.dataKey,
      key: decodeKeyFile('recovery.key', keyFile).box,
      ...{ vaultId: vault.vaultId, machineId },
    });
  }
}
