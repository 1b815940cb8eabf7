/**
 * Failovers: the product's runner over the vault and an Azure in memory, killed and run again at any moment.
 *
 * Fault model of Azure: calls take time and are lost with the runner that makes them, before or after they took effect; a machine may be
 * refused, after which the failover is undone.
 */

import { ComputeError } from '../../platform/computeErrors.ts';
import { errorCode } from '../../platform/errors.ts';
import type { Compute, DiskImageReader } from '../../platform/ports.ts';
import type { RecoveryDeps } from '../../recovery/context.ts';
import { desire, runFailover } from '../../recovery/failover.ts';
import type { FailoverDocument, FailoverRequest } from '../../vault/documents/failover.ts';
import { LedgerEntry } from '../../vault/ledger.ts';
import { MemoryCompute } from '../fakes/memoryCompute.ts';
import type { Chance } from './chance.ts';
import { forever, Life } from './life.ts';
import type { Machine } from './machine.ts';
import type { Operator } from './operator.ts';
import type { Site } from './site.ts';

const RUN_AGAIN_MS = 3_000;

export class Failovers {
  readonly compute: MemoryCompute;
  readonly #site: Site;
  readonly #chance: Chance;
  readonly #operator: Operator;
  #life: Life | undefined;
  #count = 0;
  /** Of the failover under way. */
  #refusesVm = false;
  #busy = false;

  constructor(site: Site, operator: Operator) {
    this.#site = site;
    this.#chance = site.chance.fork();
    this.#operator = operator;
    this.compute = new MemoryCompute({ pages: site.vault.pages });
  }

  get busy(): boolean {
    return this.#busy;
  }

  /** Kills the runner; another one goes on. */
  kill(): void {
    this.#life?.kill();
  }

  /** One at a time. `undone`: Azure refuses the machine, and the source goes on. Resolves with the entry at its end. */
  async run(
    machine: Machine,
    type: 'Test' | 'Unplanned',
    options: { undone: boolean },
  ): Promise<FailoverDocument | undefined> {
    if (this.#busy) return undefined;
    this.#busy = true;
    this.#count += 1;
    this.#refusesVm = options.undone;
    // Copies take a while, sometimes longer than points are kept, in which the point must stay.
    this.#site.vault.pages.copyMs = this.#chance.pick([0, 0, 5_000, 22_000]);
    const name = `failover-${this.#count}`;
    const request = requestOf(machine, type);
    try {
      let document = await this.#persist(name, async (deps) => {
        await LedgerEntry.accept(deps.objects, {
          name,
          failoverId: Buffer.from(this.#chance.bytes(16)).toString('hex'),
          namespace: 'default',
          uid: name,
          installationId: 'ab'.repeat(16),
          request,
          acceptedAt: this.#operator.clock.now(),
          outcome: 'Running',
          steps: [],
        });
        return await runFailover(name, deps, { signal: new AbortController().signal });
      });
      await this.#site.oracle.failoverEnded(document, this.compute);
      if (type === 'Test' && document.outcome === 'FailedOver')
        document = await this.#persist(name, async (deps) => {
          await desire(name, deps, 'CleanedUp');
          return await runFailover(name, deps, { signal: new AbortController().signal });
        });
      return document;
    } finally {
      this.#busy = false;
    }
  }

  /** Runs it again, in a new process, until one of them gets to the end. */
  async #persist(
    name: string,
    act: (deps: RecoveryDeps) => Promise<FailoverDocument>,
  ): Promise<FailoverDocument> {
    for (;;) {
      const life = new Life(this.#site.time, `runner of ${name}`);
      this.#life = life;
      const ended = new Promise<FailoverDocument | undefined>((resolve) => {
        life.onDeath(() => resolve(undefined));
        act(this.#deps(life)).then(resolve, (error: unknown) => {
          this.#site.logger(life.name).warn({ code: errorCode(error), error }, 'the runner ends');
          resolve(undefined);
        });
      });
      const document = await ended;
      this.#life = undefined;
      life.kill();
      if (document !== undefined) return document;
      await this.#operator.life.sleep(RUN_AGAIN_MS * this.#chance.between(0.5, 1.5));
    }
  }

  #deps(life: Life): RecoveryDeps {
    const { vault } = this.#site;
    const compute = this.#computeFor(life);
    return {
      clock: this.#operator.clock.for(life),
      random: this.#chance.fork(),
      logger: this.#site.logger(life.name),
      objects: vault.objectsFor(life, 'operator'),
      pages: vault.pagesFor(life, 'operator'),
      compute,
      images: compute,
      openDataKey: async ({ machineId }) =>
        this.#operator.dataKeys.get(machineId) ?? new Uint8Array(),
      assertInControl: () => this.#operator.control.assertInControl(1),
      pollMs: 1_000,
    };
  }

  #computeFor(life: Life): Compute & DiskImageReader {
    const chance = this.#chance;
    return new Proxy<Compute & DiskImageReader>(this.compute, {
      get: (target, name) => {
        const member: unknown = Reflect.get(target, name);
        if (typeof member !== 'function') return member;
        // A stream is read as it comes.
        if (name === 'ranges') return member.bind(target);
        return async (...args: unknown[]) => {
          if (life.dead) return await forever();
          await life.sleep(chance.about(30));
          if (name === 'createVm' && this.#refusesVm)
            throw new ComputeError('InvalidRequest', 'the size is not offered today');
          const answer: unknown = await Reflect.apply(member, target, args);
          if (chance.chance(0.3)) await life.sleep(chance.about(30));
          return answer;
        };
      },
    });
  }
}

function requestOf(machine: Machine, type: 'Test' | 'Unplanned'): FailoverRequest {
  return {
    type,
    machineId: machine.machineId,
    machineName: machine.name,
    recoveryPoint: { type: 'Latest' },
    powerOffSource: false,
    verify: 'Full',
    target: {
      name: machine.name,
      resourceGroup: 'recovery',
      location: 'westeurope',
      size: 'Standard_B2s',
      osType: 'Linux',
      generation: 'V2',
      diskType: 'StandardSSD_LRS',
      nics: [{ resourceGroup: 'recovery', network: 'production', subnet: 'default' }],
      tags: {},
      storageAccountId: 'account',
    },
  };
}
