/**
 * Faults that chance alone would hardly ever bring at their moment: each brings about a situation in which something is under way, and
 * strikes then.
 */
import type { Chance } from './chance.ts';
import type { FaultTargets } from './faults.ts';
import type { Life } from './life.ts';
import type { Machine } from './machine.ts';
import type { Server } from './server.ts';
import type { Site } from './site.ts';

const SLOW_WRITE_MS = 150;
const SLOW_READ_MS = 1_500;
/** A disk that is never at rest: more often than the account of its sectors needs to balance. */
const STORM_EVERY_MS = 8;

export const rareMoments = [
  'server overtaken in its claim',
  'volume lost after an upload',
  'volume lost after a resync without the vault',
  'agent suspended while frozen',
  'agent killed on a busy disk',
  'agent killed in a slow read',
] as const;
export type RareMoment = (typeof rareMoments)[number];

export interface RareMomentDeps {
  site: Site;
  targets: FaultTargets;
  chance: Chance;
  suspend: (life: Life) => void;
  /** No fault comes any more. */
  over: () => boolean;
}

export class RareMoments {
  readonly #deps: RareMomentDeps;

  constructor(deps: RareMomentDeps) {
    this.#deps = deps;
  }

  strike(kind: RareMoment, machine: Machine): void {
    const { targets, chance } = this.#deps;
    const server = targets.operator.ownerOf(machine.machineId) ?? chance.pick(targets.servers);
    const strikes: Record<RareMoment, () => void> = {
      'server overtaken in its claim': () => this.#overtake(server, machine),
      'volume lost after an upload': () => this.#loseAfterUpload(server, machine),
      'volume lost after a resync without the vault': () => this.#loseAfterResync(server, machine),
      'agent suspended while frozen': () => this.#suspendFrozen(machine),
      'agent killed on a busy disk': () => this.#killBusy(machine),
      'agent killed in a slow read': () => this.#killReading(machine),
    };
    strikes[kind]();
  }

  /** What lasted ends. */
  end(): void {
    for (const machine of this.#deps.targets.machines) {
      machine.kernel.atNextFreeze = undefined;
      machine.runDisk.onChange = undefined;
      for (const disk of machine.disks) disk.writeMs = 1.5;
    }
  }

  /** It must claim, for it has nothing; another one does so meanwhile, under a higher epoch. */
  #overtake(server: Server, machine: Machine): void {
    const { site, targets, chance, suspend } = this.#deps;
    server.volumeLost();
    site.vault.layAmbush({
      host: server.host,
      what: new RegExp(`^(head|list|get|putIfAbsent) (journal|points)/${machine.machineId}`),
      when: chance.pick(['asked', 'done']),
      calls: chance.whole(1, 9),
      sprung: () => {
        suspend(server.life);
        targets.operator
          .move(machine.machineId)
          .catch((error: unknown) => site.time.note(`not done: ${String(error)}`));
      },
    });
  }

  /** Of several barriers that waited for the vault only the first are there. */
  #loseAfterUpload(server: Server, machine: Machine): void {
    const { site, chance } = this.#deps;
    site.vault.cutOff(server.host);
    this.#later(chance.between(4_000, 20_000), () => {
      site.vault.heal(server.host);
      site.vault.layAmbush({
        host: server.host,
        what: new RegExp(`^putIfAbsent journal/${machine.machineId}`),
        when: 'done',
        calls: chance.whole(1, 3),
        sprung: () =>
          this.#later(chance.between(0, chance.pick([30, 200, 2_000])), () => server.volumeLost()),
      });
    });
  }

  /** The resync finds in the cache what the vault never gets. */
  #loseAfterResync(server: Server, machine: Machine): void {
    const { site, chance } = this.#deps;
    site.vault.cutOff(server.host);
    machine.workload.burst(chance.whole(5, 30));
    this.#later(chance.between(4_000, 12_000), () => {
      machine.kernel.turnTracingOff();
      this.#later(chance.between(2_500, 9_000), () => {
        server.volumeLost();
        this.#later(chance.between(0, 5_000), () => site.vault.heal(server.host));
      });
    });
  }

  /** For longer than the deadline or not; what is written when it thaws may be on its way for a while. */
  #suspendFrozen(machine: Machine): void {
    const { chance, suspend } = this.#deps;
    if (chance.chance(0.6)) this.#slowWrites(machine);
    machine.kernel.atNextFreeze = () => {
      const { life } = machine;
      this.#later(chance.between(0, 40), () => suspend(life));
    };
  }

  #slowWrites(machine: Machine): void {
    const { chance } = this.#deps;
    for (const disk of machine.disks) disk.writeMs = SLOW_WRITE_MS;
    this.#later(chance.about(20_000), () => {
      for (const disk of machine.disks) disk.writeMs = 1.5;
    });
  }

  /** Begins to track anew in a storm of writes, saves, takes some events more, and dies. */
  #killBusy(machine: Machine): void {
    const { chance } = this.#deps;
    const forMs = chance.between(4_000, 9_000);
    for (let ms = 0; ms < forMs; ms += STORM_EVERY_MS * chance.between(0.5, 1.5))
      this.#later(ms, () => {
        if (!machine.off) machine.workload.writeSmall();
      });
    machine.kernel.turnTracingOff();
    let isArmed = true;
    const { life } = machine;
    machine.runDisk.onChange = (operation, path) => {
      if (!isArmed || operation !== 'rename' || path !== 'state' || !chance.chance(0.3)) return;
      isArmed = false;
      this.#later(chance.between(20, 260), () => {
        if (machine.life === life) machine.killAgent();
      });
    };
    this.#later(forMs, () => {
      isArmed = false;
    });
  }

  #killReading(machine: Machine): void {
    const { chance } = this.#deps;
    machine.workload.burst(chance.whole(3, 20));
    for (const disk of machine.disks) disk.readMs = SLOW_READ_MS;
    this.#later(chance.between(500, 9_000), () => {
      machine.killAgent();
      for (const disk of machine.disks) disk.readMs = 2;
    });
  }

  #later(ms: number, act: () => void): void {
    this.#deps.site.time.after(ms, 'rare moment', () => {
      if (!this.#deps.over()) act();
    });
  }
}
