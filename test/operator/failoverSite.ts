/** A machine that can be failed over, in a world in memory whose operators run failovers by a script. */
import { type Failover, farshoreTypes } from '../../crds/index.ts';
import type { FakeKube } from '../fakes/kube.ts';
import {
  create,
  named,
  PASSPHRASE,
  processServer,
  protectedVM,
  replicationPolicy,
  secret,
} from './manifests.ts';
import { type MemoryWorld, test as worldTest } from './memoryWorld.ts';
import { putPoint } from './peers.ts';
import type { RunningOperator } from './runningOperator.ts';
import { ScriptedRecovery } from './scriptedRecovery.ts';
import { eventually, untilCondition } from './waiting.ts';

export class FailoverSite {
  readonly recovery = new ScriptedRecovery();
  readonly #world: MemoryWorld;

  constructor(world: MemoryWorld) {
    this.#world = world;
  }

  operate(options: { kube?: FakeKube; holder?: string } = {}): RunningOperator {
    return this.#world.operate({ ...options, runFailover: this.recovery.run });
  }

  /** Machine web, accepted, with a recovery point. Returns its id. */
  async prepare(): Promise<string> {
    const world = this.#world;
    await world.createAll();
    await untilCondition(world.kube, farshoreTypes.protectedVM, named('web'), {
      type: 'Accepted',
      status: 'True',
    });
    const machineId = await world.machineIdOf();
    await putPoint(world.objects, machineId);
    return machineId;
  }

  /** Likewise with a second namespace that the vault allows, and machine db in it. */
  async prepareOther(): Promise<void> {
    const { kube, objects } = this.#world;
    await this.prepare();
    await this.allow(['other']);
    const vaultRef = { name: 'vault', namespace: 'default' };
    await create(
      kube,
      secret('passphrase', { passphrase: PASSPHRASE }, 'other'),
      replicationPolicy('policy', 'other'),
      processServer('ps2', { vaultRef }, 'other'),
      protectedVM('db', { vaultRef, processServerRef: { name: 'ps2' } }, 'other'),
    );
    await untilCondition(kube, farshoreTypes.protectedVM, named('db', 'other'), {
      type: 'Accepted',
      status: 'True',
    });
    await putPoint(objects, await this.#world.machineIdOf('db', 'other'));
  }

  async allow(allowedNamespaces: string[]): Promise<void> {
    await this.#world.kube.patch(farshoreTypes.recoveryVault, named('vault'), {
      merge: { spec: { allowedNamespaces } },
    });
  }

  async desire(name: string, desiredState: 'Committed' | 'CleanedUp'): Promise<void> {
    await this.#world.kube.patch(farshoreTypes.failover, named(name), {
      merge: { spec: { desiredState } },
    });
  }

  async untilPhase(
    name: string,
    phase: string,
    where: { kube?: FakeKube; namespace?: string } = {},
  ): Promise<Failover> {
    return await this.#world.untilPhase<Failover>(farshoreTypes.failover, name, {
      phase,
      ...where,
    });
  }

  async untilStep(name: string, step: string): Promise<void> {
    await eventually(() => {
      const found = this.#world.kube.peek<Failover>(farshoreTypes.failover, named(name));
      if (found?.status?.currentStep !== step)
        throw new Error(`failover ${name} is at ${found?.status?.currentStep}, not ${step}`);
    });
  }
}

/** A test that has a site to itself; nothing is applied and no operator runs yet. */
export const test = worldTest.extend('site', async ({ world }) => new FailoverSite(world));
