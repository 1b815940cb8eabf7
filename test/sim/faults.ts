/** Carries the faults of a scenario out, and undoes at the end what lasts. */
import type { Applier } from './applier.ts';
import type { Chance } from './chance.ts';
import type { Failovers } from './failovers.ts';
import { type HeldMoment, HeldMoments, isHeldMoment } from './heldMoments.ts';
import type { Life } from './life.ts';
import type { Machine } from './machine.ts';
import type { Operator } from './operator.ts';
import { isRare, type RareMoment, RareMoments } from './rareMoments.ts';
import type { FaultKind } from './scenario.ts';
import type { Server } from './server.ts';
import type { Site } from './site.ts';

/** What the cache promises to notice, or to keep from mattering; cache.json says itself what to do. */
const ROTTING = [/\.log$/, /state\.json$/, /\.seg$/, /\.leaves$/, /\.unsettled$/];

export interface FaultTargets {
  machines: readonly Machine[];
  servers: readonly Server[];
  appliers: readonly Applier[];
  operator: Operator;
  failovers: Failovers;
}

export class Faults {
  readonly #site: Site;
  readonly #filled = new Set<Server>();
  readonly #chance: Chance;
  readonly #targets: FaultTargets;
  readonly #vaultFaultRate: number;
  readonly #rareMoments: RareMoments;
  readonly #heldMoments: HeldMoments;
  #over = false;

  constructor(site: Site, targets: FaultTargets, options: { vaultFaultRate: number }) {
    this.#site = site;
    this.#chance = site.chance.fork();
    this.#targets = targets;
    this.#vaultFaultRate = options.vaultFaultRate;
    this.#rareMoments = new RareMoments({
      site,
      targets,
      chance: this.#chance.fork(),
      suspend: (life) => this.#suspend(life),
      losePower: (server) => this.#powerLost(server),
      over: () => this.#over,
    });
    this.#heldMoments = new HeldMoments({
      site,
      chance: this.#chance.fork(),
      failovers: targets.failovers,
      strike: (kind, machine) =>
        this.#strikeNow(kind, { machine, server: this.#serverOf(machine) }),
      cutOff: (of, ms) => {
        for (const { host } of of === 'all' ? targets.servers : [this.#serverOf(of)]) {
          site.vault.cutOff(host);
          site.time.after(ms, 'fault ends', () => site.vault.heal(host));
        }
      },
      over: () => this.#over,
    });
    site.vault.faultRate = options.vaultFaultRate;
  }

  strike(kind: FaultKind): void {
    const { servers, machines, operator } = this.#targets;
    // Mostly one that has something to lose.
    const owner = operator.ownerOf(this.#chance.pick(machines).machineId);
    const server =
      owner !== undefined && this.#chance.chance(0.7) ? owner : this.#chance.pick(servers);
    // What a process server has acknowledged and not uploaded is little, and short-lived, unless the vault is away.
    const behindOutage = /^(server|machine moved)/.test(kind) && this.#chance.chance(0.6);
    if (!behindOutage) {
      this.#strikeNow(kind, { server, machine: this.#chance.pick(machines) });
      return;
    }
    this.#cutOff(server.host);
    this.#site.time.after(this.#chance.between(500, 15_000), `fault ${kind}, of late`, () => {
      if (!this.#over) this.#strikeNow(kind, { server, machine: this.#chance.pick(machines) });
    });
  }

  /** Of the two, what a kind is about. */
  #strikeNow(kind: FaultKind, { server, machine }: { server: Server; machine: Machine }): void {
    const chance = this.#chance;
    const { appliers, operator, failovers } = this.#targets;
    const { network, vault } = this.#site;
    const applier = chance.pick(appliers);
    const { machineId } = machine;
    this.#site.counted(kind);
    if (isRare(kind)) {
      this.#rareMoments.strike(kind, machine);
      return;
    }
    if (isHeldMoment(kind)) {
      this.#heldMoments.strike(kind, machine);
      return;
    }
    const strikes: Record<Exclude<FaultKind, RareMoment | HeldMoment>, () => unknown> = {
      'agent killed': () => machine.killAgent(),
      'agent stopped in order': () => machine.stopAgent(),
      'agent suspended': () => this.#suspend(machine.life),
      'machine rebooted': () => machine.reboot(chance.between(2_000, 15_000)),
      'server killed': () => server.kill(),
      'server killed in a disk call': () => this.#trap(server, () => server.kill()),
      'server stopped in order': () => server.stop(),
      'server suspended': () => this.#suspend(server.life),
      'server power lost': () => this.#powerLost(server),
      'server power lost in a disk call': () => this.#trap(server, () => this.#powerLost(server)),
      'server volume lost': () => server.volumeLost(),
      'server disk full': () => this.#fill(server),
      'server disk errors': () => {
        server.cacheDisk.errorRate = chance.pick([0.003, 0.02]);
        this.#later(5_000, () => {
          server.cacheDisk.errorRate = 0;
        });
      },
      'server disk rots': () => this.#rot(server),
      'applier killed': () => applier.kill(),
      'applier killed in a request': () =>
        vault.setTrap({ life: applier.life, calls: chance.whole(1, 60) }),
      'applier suspended': () => this.#suspend(applier.life),
      'second applier': () => appliers[1]?.start(),
      'connections reset': () => network.reset(machine.host, server.host),
      'link silent': () => {
        network.silence(machine.host, server.host);
        this.#later(25_000, () => network.heal(machine.host, server.host));
      },
      'server cut off from the vault': () => this.#cutOff(server.host),
      'applier cut off from the vault': () => this.#cutOff(applier.host),
      'vault down': () => {
        vault.down = true;
        this.#later(20_000, () => {
          vault.down = false;
        });
      },
      'vault faulty': () => {
        vault.faultRate = chance.pick([0.1, 0.3, 0.6]);
        this.#later(15_000, () => {
          vault.faultRate = this.#vaultFaultRate;
        });
      },
      'machine moved': () => this.#try(() => operator.move(machineId)),
      'machine moved there and back': () => this.#moveThereAndBack(machineId, server),
      'clock jumps': () => this.#jump(chance.pick([machine, server, applier]).clock),
      'resync asked for': () => operator.requestResync(machineId),
      paused: () => {
        operator.pause(machineId, true);
        this.#later(10_000, () => operator.pause(machineId, false));
      },
      'trace overrun': () => machine.workload.burst(machine.kernel.trace.bufferEvents * 3),
      'trace event lost': () => this.#loseEvent(machine),
      'tracing turned off': () => machine.kernel.trace.turnOff(),
      'raw writes': () => this.#writeRaw(machine),
      'disk read errors': () => {
        for (const disk of machine.disks) disk.readErrorRate = 0.3;
        this.#later(8_000, () => {
          for (const disk of machine.disks) disk.readErrorRate = 0;
        });
      },
      'source disk slow': () => {
        for (const disk of machine.disks) {
          disk.readMs = chance.pick([200, 1_500]);
          disk.writeMs = chance.pick([1.5, 60]);
        }
        this.#later(12_000, () => {
          for (const disk of machine.disks) {
            disk.readMs = 2;
            disk.writeMs = 1.5;
          }
        });
      },
      'freezes fail': () => {
        machine.kernel.freezeFailRate = 0.7;
        this.#later(10_000, () => {
          machine.kernel.freezeFailRate = 0;
        });
      },
      'burst of writes': () => machine.workload.burst(chance.whole(10, 80)),
      'test failover': () =>
        this.#try(() => failovers.run(machine, 'Test', { undone: chance.chance(0.2) })),
      'unplanned failover': () =>
        this.#try(async () => {
          await failovers.run(machine, 'Unplanned', { undone: chance.chance(0.75) });
          // Whoever begins anew must not write behind the seal.
          if (chance.chance(0.4) && !this.#over) server.volumeLost();
        }),
      'failover runner killed': () => failovers.kill(),
    };
    strikes[kind]();
  }

  /** No fault comes any more, and what lasted ends. */
  end(): void {
    this.#over = true;
    const { machines, servers, appliers, operator } = this.#targets;
    const { network, vault } = this.#site;
    vault.down = false;
    vault.faultRate = 0;
    vault.clearTrap();
    this.#site.oracle.atFinalSync = undefined;
    this.#rareMoments.end();
    for (const applier of appliers.slice(1)) {
      applier.down = true;
      applier.stop();
    }
    for (const { life } of [...machines, ...servers, ...appliers]) life.goOn();
    for (const { host } of [...servers, ...appliers]) vault.heal(host);
    for (const server of servers) {
      server.cacheDisk.errorRate = 0;
      server.cacheDisk.clearTrap();
      for (const machine of machines) network.heal(machine.host, server.host);
    }
    for (const machine of machines) {
      for (const disk of machine.disks) {
        disk.readErrorRate = 0;
        disk.readMs = 2;
      }
      machine.kernel.freezeFailRate = 0;
      machine.refusesPowerOff = false;
      machine.kernel.atFinalFreeze = undefined;
      machine.kernel.atHold = undefined;
      operator.pause(machine.machineId, false);
    }
  }

  #serverOf({ machineId }: Machine): Server {
    const { operator, servers } = this.#targets;
    return operator.ownerOf(machineId) ?? this.#chance.pick(servers);
  }

  #later(meanMs: number, act: () => void): void {
    this.#site.time.after(this.#chance.about(meanMs), 'fault ends', () => {
      if (!this.#over) act();
    });
  }

  #try(act: () => Promise<unknown>): void {
    act().catch((error: unknown) => this.#site.time.note(`not done: ${String(error)}`));
  }

  /** Shorter than every timeout, or longer. */
  #suspend(life: Life): void {
    life.stop();
    const ms = this.#chance.pick([1_000, 10_000, 70_000]);
    this.#site.time.after(this.#chance.between(ms / 3, ms), 'goes on', () => life.goOn());
  }

  /** A process server may be in the middle of its claim then, or may not have heard of any of it. */
  #moveThereAndBack(machineId: string, server: Server): void {
    const move = () => this.#try(() => this.#targets.operator.move(machineId));
    move();
    this.#site.time.after(this.#chance.between(500, 12_000), 'moved back', () => {
      if (this.#over) return;
      move();
      if (this.#chance.chance(0.4)) this.#suspend(server.life);
    });
  }

  /** In one of the next calls, or of those on the log. */
  #trap(server: Server, sprung: () => void): void {
    const calls = this.#chance.whole(1, 40);
    const only = this.#chance.pick(['', 'log/', 'machines/']);
    server.cacheDisk.setTrap({ calls, only, sprung });
  }

  #powerLost(server: Server): void {
    server.powerLost();
    server.down = true;
    this.#site.time.after(this.#chance.about(8_000), `${server.name} has power`, () => {
      server.down = false;
      server.start();
    });
  }

  /** Somebody else fills the volume's pool. */
  #fill(server: Server): void {
    // Two at once would each put back what they found, and the later one finds a full disk.
    if (this.#filled.has(server)) return;
    this.#filled.add(server);
    const { cacheDisk } = server;
    const before = cacheDisk.capacityBytes;
    cacheDisk.capacityBytes = cacheDisk.usedBytes + this.#chance.whole(0, 400) * 1024;
    this.#site.time.after(this.#chance.about(10_000), 'there is space again', () => {
      cacheDisk.capacityBytes = before;
      this.#filled.delete(server);
    });
  }

  #rot(server: Server): void {
    if (this.#chance.chance(0.65)) {
      this.#flip(server, ROTTING);
      server.kill();
      return;
    }
    // Tables are whole on disk and believed only after an end in order: otherwise the log says it all again.
    server.stop();
    this.#site.time.after(1_000, 'rot at rest', () => {
      if (!this.#over) this.#flip(server, [/\.leaves$/]);
    });
  }

  #flip(server: Server, kinds: readonly RegExp[]): void {
    server.lostAtMs = this.#site.time.nowMs;
    server.rotted = true;
    const file = server.cacheDisk.rot(kinds);
    this.#site.time.note(`rot in ${file ?? 'nothing'}`);
  }

  #cutOff(host: string): void {
    this.#site.vault.cutOff(host);
    this.#later(30_000, () => this.#site.vault.heal(host));
  }

  #jump(clock: { offsetMs: number }): void {
    const ms = this.#chance.pick([5_000, 120_000, 3_600_000]);
    clock.offsetMs += this.#chance.between(-ms, ms);
  }

  #loseEvent(machine: Machine): void {
    machine.workload.burst(3);
    this.#site.time.after(20, 'an event is lost', () => {
      if (machine.kernel.trace.dropEvent()) this.#site.counted('trace event lost indeed');
    });
  }

  #writeRaw(machine: Machine): void {
    for (let count = 0; count < 200; count += 1)
      this.#site.time.after(count * 60, 'raw write', () => {
        if (!machine.off) machine.workload.writeRaw();
      });
  }
}
