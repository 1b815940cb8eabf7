/**
 * Failovers: the product's runner over the vault and an Azure in memory, killed and run again at any moment. One that is planned may be
 * deleted by force while it waits for its source, and created again under its name: it goes on then.
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

export type FailoverType = FailoverRequest['type'];

export interface FailoverOptions {
  /** Azure refuses the machine, and the source goes on. */
  undone: boolean;
  /** Planned: the source is turned off once it is held. */
  powerOffSource?: boolean;
}

export class Failovers {
  readonly compute: MemoryCompute;
  readonly #site: Site;
  readonly #chance: Chance;
  readonly #operator: Operator;
  #life: Life | undefined;
  #awayMs = 0;
  #count = 0;
  /** Of the failover under way. */
  #refusesVm = false;
  #busy = false;
  /** By machine: its Failover that was deleted by force. */
  readonly #deleted = new Map<Machine, string>();
  #underWay: { name: string; machine: Machine } | undefined;

  constructor(site: Site, operator: Operator) {
    this.#site = site;
    this.#chance = site.chance.fork();
    this.#operator = operator;
    this.compute = new MemoryCompute({ pages: site.vault.pages });
  }

  get busy(): boolean {
    return this.#busy;
  }

  /** Kills the runner; another one goes on, after a while or at once. */
  kill({ awayMs = 0 }: { awayMs?: number } = {}): void {
    this.#awayMs = awayMs;
    this.#life?.kill();
  }

  /** Its planned failover was deleted and holds it in the catalog: it goes on when it is created again. */
  isDeleted(machine: Machine): boolean {
    return this.#deleted.has(machine);
  }

  /**
   * Deletes the planned failover of a machine by force: nobody runs it any more, and nothing is asked of the source on its behalf. Not
   * once it took the disks, which then belong to nobody.
   */
  async cancel(machine: Machine): Promise<boolean> {
    const { name, machine: ours } = this.#underWay ?? {};
    if (name === undefined || ours !== machine) return false;
    const entry = await LedgerEntry.read(this.#site.vault.objects, name);
    const { request, steps = [] } = entry?.document ?? {};
    if (request?.type !== 'Planned' || steps.some((step) => step.name === 'SealJournal'))
      return false;
    this.#operator.deleted.add(name);
    this.#deleted.set(machine, name);
    this.#site.time.note(`fault ${name} is deleted`);
    this.#life?.kill();
    return true;
  }

  /** One at a time; one that was deleted goes on. Resolves with the entry at its end; undefined when it was deleted, or can't begin. */
  async run(
    machine: Machine,
    type: FailoverType,
    options: FailoverOptions,
  ): Promise<FailoverDocument | undefined> {
    if (this.#busy) return undefined;
    this.#busy = true;
    const deleted = type === 'Planned' ? this.#deleted.get(machine) : undefined;
    if (deleted === undefined) this.#count += 1;
    else {
      this.#deleted.delete(machine);
      this.#operator.deleted.delete(deleted);
    }
    this.#refusesVm = options.undone;
    // Copies take a while, sometimes longer than points are kept, in which the point must stay.
    this.#site.vault.pages.copyMs = this.#chance.pick([0, 0, 5_000, 22_000]);
    const name = deleted ?? `failover-${this.#count}`;
    const request = requestOf(machine, type, options);
    this.#underWay = { name, machine };
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
      if (document !== undefined) await this.#site.oracle.failoverEnded(document, this.compute);
      if (type === 'Test' && document?.outcome === 'FailedOver')
        document = await this.#persist(name, async (deps) => {
          await desire(name, deps, 'CleanedUp');
          return await runFailover(name, deps, { signal: new AbortController().signal });
        });
      return document;
    } finally {
      this.#busy = false;
      this.#underWay = undefined;
    }
  }

  /** Runs it again, in a new process, until one of them gets to the end, or it is deleted. */
  async #persist(
    name: string,
    act: (deps: RecoveryDeps) => Promise<FailoverDocument>,
  ): Promise<FailoverDocument | undefined> {
    while (!this.#operator.deleted.has(name)) {
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
      const awayMs = this.#awayMs + RUN_AGAIN_MS * this.#chance.between(0.5, 1.5);
      this.#awayMs = 0;
      await this.#operator.life.sleep(awayMs);
    }
    return undefined;
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

function requestOf(
  machine: Machine,
  type: FailoverType,
  { powerOffSource = false }: FailoverOptions,
): FailoverRequest {
  return {
    type,
    machineId: machine.machineId,
    machineName: machine.name,
    recoveryPoint: { type: 'Latest' },
    powerOffSource,
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
