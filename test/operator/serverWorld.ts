/** Operators on a real API server and Azurite; only Azure Resource Manager is in memory. A namespace and a container for each test. */
import { farshoreTypes, type ProtectedVM } from '../../crds/index.ts';
import {
  ensureVaultContainer,
  openVaultStores,
  type VaultStores,
} from '../../platform/azure/vaultStores.ts';
import type { HttpKubeClient } from '../../platform/kube/client.ts';
import type { KubeObject } from '../../platform/kubernetes.ts';
import { systemClock } from '../../platform/node/clock.ts';
import { systemRandom } from '../../platform/node/random.ts';
import { generateRecoveryKey } from '../../vault/recoveryKey.ts';
import { MemoryCompute } from '../fakes/memoryCompute.ts';
import { type LogLine, recordingLogger } from '../fakes/silentLogger.ts';
import { type Azurite, startAzurite } from '../servers/azurite.ts';
import { type FarshoreCluster, startFarshoreCluster } from '../servers/farshoreCluster.ts';
import type { KubernetesServer } from '../servers/kubernetes.ts';
import {
  create,
  named,
  PASSPHRASE,
  processServer,
  protectedVM,
  recoveryVault,
  replicationPolicy,
  secret,
} from './manifests.ts';
import { type RunningOperator, startOperator } from './runningOperator.ts';
import { eventually } from './waiting.ts';

const deps = { clock: systemClock, random: systemRandom };

export class ServerWorld {
  readonly azurite: Azurite;
  /** Of this test. */
  namespace = '';
  /** Of this test, in the order in which they were started. */
  running: RunningOperator[] = [];
  /** What this test's operators have logged. */
  lines: LogLine[] = [];
  readonly #cluster: FarshoreCluster;
  readonly #recovery = generateRecoveryKey(systemRandom);
  #container = '';
  #count = 0;

  private constructor(servers: { cluster: FarshoreCluster; azurite: Azurite }) {
    this.#cluster = servers.cluster;
    this.azurite = servers.azurite;
  }

  static async start(): Promise<ServerWorld> {
    const azurite = await startAzurite();
    try {
      return new ServerWorld({ azurite, cluster: await startFarshoreCluster() });
    } catch (error) {
      await azurite.stop();
      throw error;
    }
  }

  async close(): Promise<void> {
    await this.#cluster.close();
    await this.azurite.stop();
  }

  get server(): KubernetesServer {
    return this.#cluster.server;
  }

  get kube(): HttpKubeClient {
    return this.#cluster.client;
  }

  beginTest(): void {
    this.#count += 1;
    this.namespace = `operator-${this.#count}`;
    this.#container = `vault-${this.#count}`;
    this.server.kubectl(['create', 'namespace', this.namespace]);
    this.running = [];
    this.lines = [];
  }

  async endTest(): Promise<void> {
    for (const one of this.running) await one.stop();
  }

  stores(): VaultStores {
    return openVaultStores(deps, this.#access());
  }

  /** The connection string comes from the Secret, as in production. */
  operate(options: { namespace?: string; holder?: string } = {}): RunningOperator {
    const { namespace = this.namespace, holder = 'first cluster' } = options;
    const started = startOperator({
      kube: this.kube,
      namespace,
      watchNamespace: namespace,
      holder,
      leaderElect: true,
      log: recordingLogger(this.lines),
      stores: ({ storage }) => {
        const access = {
          ...this.#access(storage.connectionString),
          container: storage.container,
        };
        const { objects, pages } = openVaultStores(deps, access);
        const compute = new MemoryCompute({ pages });
        return {
          objects,
          pages,
          compute,
          images: compute,
          ensureContainer: async () => {
            await ensureVaultContainer(deps, access);
          },
          close: async () => {},
        };
      },
    });
    this.running.push(started);
    return started;
  }

  /** Vault, policy, process server ps and machine web, with their Secrets. */
  async createAll(options: { namespace?: string; connectionString?: string } = {}): Promise<void> {
    const { namespace = this.namespace, connectionString = this.azurite.connectionString } =
      options;
    const vault = recoveryVault({
      recipients: [this.#recovery.publicString],
      spec: { containerName: this.#container },
    });
    await create(
      this.kube,
      secret('azure', { clientSecret: 'secret', connectionString }, namespace),
      secret('passphrase', { passphrase: PASSPHRASE }, namespace),
      this.inNamespace(vault, namespace),
      replicationPolicy('policy', namespace),
      processServer('ps', {}, namespace),
      protectedVM('web', {}, namespace),
    );
  }

  inNamespace<T extends KubeObject>(object: T, namespace = this.namespace): T {
    return { ...object, metadata: { ...object.metadata, namespace } };
  }

  at(name: string, namespace = this.namespace) {
    return named(name, namespace);
  }

  async machineIdOf(name = 'web'): Promise<string> {
    return await eventually(async () => {
      const machine = await this.kube.get<ProtectedVM>(farshoreTypes.protectedVM, this.at(name));
      const id = machine?.status?.machineId;
      if (id === undefined)
        throw new Error(`${name} has no machineId: ${JSON.stringify(machine?.status)}`);
      return id;
    });
  }

  #access(connectionString = this.azurite.connectionString) {
    return {
      connectionString,
      container: this.#container,
      patience: { stallMs: 2_000, totalMs: 2_000 },
    };
  }
}
