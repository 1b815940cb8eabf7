/** Operators on a Kubernetes API, a vault and an Azure in memory: every controller, none of the servers. */
import { test as base } from 'vitest';
import { farshoreTypes, type ProtectedVM } from '../../crds/index.ts';
import type { KubeObject, ResourceType } from '../../platform/kubernetes.ts';
import { systemRandom } from '../../platform/node/random.ts';
import { generateRecoveryKey } from '../../vault/recoveryKey.ts';
import { FakeKube } from '../fakes/kube.ts';
import { MemoryCompute } from '../fakes/memoryCompute.ts';
import { MemoryObjectStore } from '../fakes/memoryObjectStore.ts';
import { MemoryPageBlobStore } from '../fakes/memoryPageBlobStore.ts';
import { ShiftedClock } from '../fakes/shiftedClock.ts';
import { type LogLine, recordingLogger } from '../fakes/silentLogger.ts';
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
import { askWithToken, awaitAnswer, bootstrapOf } from './peers.ts';
import { type RunningOperator, startOperator } from './runningOperator.ts';
import { eventually } from './waiting.ts';

export class MemoryWorld {
  /** The first cluster's API. */
  readonly kube = new FakeKube();
  readonly clock = new ShiftedClock();
  readonly objects = new MemoryObjectStore({ clock: this.clock });
  readonly pages = new MemoryPageBlobStore({ clock: this.clock });
  readonly compute = new MemoryCompute({ pages: this.pages });
  readonly recovery = generateRecoveryKey(systemRandom);
  readonly logger = recordingLogger();
  readonly #running: RunningOperator[] = [];

  operate(
    options: Pick<Parameters<typeof startOperator>[0], 'holder' | 'runFailover'> & {
      kube?: FakeKube;
    } = {},
  ): RunningOperator {
    const { objects, pages, compute } = this;
    const started = startOperator({
      kube: options.kube ?? this.kube,
      holder: options.holder ?? 'first cluster',
      log: this.logger,
      clock: this.clock,
      runFailover: options.runFailover,
      stores: () => ({
        objects,
        pages,
        compute,
        images: compute,
        ensureContainer: async () => {},
        close: async () => {},
      }),
    });
    this.#running.push(started);
    return started;
  }

  /** Stops every operator; with SHOW_LOGS in the environment, says what they said. */
  async close(): Promise<void> {
    for (const one of this.#running) await one.stop();
    if (process.env.SHOW_LOGS) for (const line of this.logger.lines.slice(0, 60)) print(line);
  }

  vault(spec: Parameters<typeof recoveryVault>[0]['spec'] = {}) {
    return recoveryVault({ recipients: [this.recovery.publicString], spec });
  }

  async createSecrets(into = this.kube): Promise<void> {
    await create(
      into,
      secret('azure', { clientSecret: 'secret', connectionString: 'UseDevelopmentStorage=true' }),
      secret('passphrase', { passphrase: `${PASSPHRASE}\n` }),
    );
  }

  /** Vault, policy, process server ps and machine web. */
  async createAll(into = this.kube): Promise<void> {
    await create(into, this.vault(), replicationPolicy(), processServer(), protectedVM());
  }

  async machineIdOf(name = 'web', namespace = 'default'): Promise<string> {
    return await eventually(() => {
      const machine = this.kube.peek<ProtectedVM>(
        farshoreTypes.protectedVM,
        named(name, namespace),
      );
      const id = machine?.status?.machineId;
      if (id === undefined) throw new Error(`${name} has no machineId yet`);
      return id;
    });
  }

  /** A process server that was taken in; its key, and what it pins. */
  async enrolProcessServer(name = 'ps') {
    const bootstrap = await bootstrapOf(this.kube, `${name}-bootstrap`);
    const asked = await askWithToken(this.objects, bootstrap);
    const answer = await awaitAnswer(this.objects, asked.id);
    if (answer.outcome !== 'accepted')
      throw new Error(`${name} was refused: ${answer.code} ${answer.message}`);
    return { bootstrap, ...asked };
  }

  async untilGone(type: ResourceType, name: string, namespace = 'default'): Promise<void> {
    await eventually(() => {
      if (this.kube.peek(type, named(name, namespace)) !== undefined)
        throw new Error(`${name} is still there`);
    });
  }

  /** Waits for a phase of a ProtectedVM or a Failover, and returns the object. */
  async untilPhase<T extends KubeObject & { status?: { phase?: string } }>(
    type: ResourceType,
    name: string,
    wanted: { phase: string; namespace?: string; kube?: FakeKube },
  ): Promise<T> {
    const { phase, namespace = 'default', kube = this.kube } = wanted;
    return await eventually(() => {
      const found = kube.peek<T>(type, named(name, namespace));
      if (found?.status?.phase !== phase)
        throw new Error(`${type.kind} ${name} is ${found?.status?.phase}, not ${phase}`);
      return found;
    });
  }
}

/** A test that has a world to itself: Secrets are there, no operator runs yet. */
export const test = base.extend(
  'world',
  // biome-ignore lint/correctness/noEmptyPattern: Vitest reads off the pattern which fixtures this one needs.
  async ({}, { onCleanup }) => {
    const world = new MemoryWorld();
    onCleanup(async () => await world.close());
    await world.createSecrets();
    return world;
  },
);

function print(line: LogLine): void {
  const fields = JSON.stringify(line.fields, (_key, value) => {
    if (value instanceof Error) return `${value.message} ${value.stack}`;
    return typeof value === 'bigint' ? String(value) : value;
  });
  console.log(line.level, line.message, fields);
}
