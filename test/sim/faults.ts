/** Carries the faults of a scenario out, and undoes at the end what lasts. */
import type { Applier } from './applier.ts';
import type { Chance } from './chance.ts';
import type { Failovers } from './failovers.ts';
import type { Life } from './life.ts';
import type { Machine } from './machine.ts';
import type { Operator } from './operator.ts';
import type { FaultKind } from './scenario.ts';
import type { Server } from './server.ts';
import type { Site } from './site.ts';

export interface FaultTargets {
  machines: readonly Machine[];
  servers: readonly Server[];
  appliers: readonly Applier[];
  operator: Operator;
  failovers: Failovers;
}

export class Faults {
  readonly #site: Site;
  readonly #chance: Chance;
  readonly #targets: FaultTargets;
  readonly #vaultFaultRate: number;
  #over = false;

  constructor(site: Site, targets: FaultTargets, options: { vaultFaultRate: number }) {
    this.#site = site;
    this.#chance = site.chance.fork();
    this.#targets = targets;
    this.#vaultFaultRate = options.vaultFaultRate;
    site.vault.faultRate = options.vaultFaultRate;
  }

  strike(kind: FaultKind): void {
    const server = this.#chance.pick(this.#targets.servers);
    // What a process server has acknowledged and not uploaded is little, and short-lived, unless the vault is away.
    const behindOutage = /^(server|machine moved)/.test(kind) && this.#chance.chance(0.6);
    if (!behindOutage) {
      this.#strikeNow(kind, server);
      return;
    }
    this.#cutOff(server.host);
    this.#site.time.after(this.#chance.between(500, 15_000), `fault ${kind}, of late`, () => {
      if (!this.#over) this.#strikeNow(kind, server);
    });
  }

  #strikeNow(kind: FaultKind, server: Server): void {
    const chance = this.#chance;
    const { machines, appliers, operator, failovers } = this.#targets;
    const { network, vault } = this.#site;
    const machine = chance.pick(machines);
    const applier = chance.pick(appliers);
    const { machineId } = machine;
    this.#site.counted(kind);
    switch (kind) {
      case 'agent killed':
        return machine.killAgent();
      case 'agent stopped in order':
        return machine.stopAgent();
      case 'agent suspended':
        return this.#suspend(machine.life);
      case 'machine rebooted':
        return machine.reboot(chance.between(2_000, 15_000));
      case 'server killed':
        return server.kill();
      case 'server killed in a disk call':
        return server.cacheDisk.setTrap(chance.whole(1, 60), () => server.kill());
      case 'server stopped in order':
        return server.stop();
      case 'server suspended':
        return this.#suspend(server.life);
      case 'server power lost':
        return this.#powerLost(server);
      case 'server power lost in a disk call':
        return server.cacheDisk.setTrap(chance.whole(1, 60), () => this.#powerLost(server));
      case 'server volume lost':
        return server.volumeLost();
      case 'server disk full':
        return this.#fill(server);
      case 'server disk errors':
        server.cacheDisk.errorRate = chance.pick([0.003, 0.02]);
        return this.#later(5_000, () => {
          server.cacheDisk.errorRate = 0;
        });
      case 'server disk rots':
        return this.#rot(server);
      case 'applier killed':
        return applier.kill();
      case 'applier suspended':
        return this.#suspend(applier.life);
      case 'second applier':
        return this.#secondApplier();
      case 'connections reset':
        return network.reset(machine.host, server.host);
      case 'link silent':
        network.silence(machine.host, server.host);
        return this.#later(25_000, () => network.heal(machine.host, server.host));
      case 'server cut off from the vault':
        return this.#cutOff(server.host);
      case 'applier cut off from the vault':
        return this.#cutOff(applier.host);
      case 'vault down':
        vault.down = true;
        return this.#later(20_000, () => {
          vault.down = false;
        });
      case 'vault faulty':
        vault.faultRate = chance.pick([0.1, 0.3, 0.6]);
        return this.#later(15_000, () => {
          vault.faultRate = this.#vaultFaultRate;
        });
      case 'machine moved':
        return this.#try(() => operator.move(machineId));
      case 'clock jumps':
        return this.#jump(chance.pick([machine, server, applier]).clock);
      case 'resync asked for':
        return operator.requestResync(machineId);
      case 'paused':
        operator.pause(machineId, true);
        return this.#later(10_000, () => operator.pause(machineId, false));
      case 'trace overrun':
        return machine.workload.burst(machine.kernel.bufferEvents * 3);
      case 'trace event lost':
        return this.#loseEvent(machine);
      case 'tracing turned off':
        machine.kernel.turnTracingOff();
        return;
      case 'raw writes':
        return this.#writeRaw(machine);
      case 'disk read errors':
        for (const disk of machine.disks) disk.readErrorRate = 0.3;
        return this.#later(8_000, () => {
          for (const disk of machine.disks) disk.readErrorRate = 0;
        });
      case 'freezes fail':
        machine.kernel.freezeFailRate = 0.7;
        return this.#later(10_000, () => {
          machine.kernel.freezeFailRate = 0;
        });
      case 'burst of writes':
        return machine.workload.burst(chance.whole(10, 80));
      case 'test failover':
        return this.#try(() => failovers.run(machine, 'Test', { undone: chance.chance(0.2) }));
      case 'unplanned failover':
        return this.#try(() => failovers.run(machine, 'Unplanned', { undone: chance.chance(0.75) }));
      case 'failover runner killed':
        return failovers.kill();
    }
  }

  /** No fault comes any more, and what lasted ends. */
  end(): void {
    this.#over = true;
    const { machines, servers, appliers, operator } = this.#targets;
    const { network, vault } = this.#site;
    vault.down = false;
    vault.faultRate = 0;
    for (const applier of appliers.slice(1)) {
      applier.down = true;
      applier.stop();
    }
    for (const { life } of [...machines, ...servers, ...appliers]) life.goOn();
    for (const { host } of [...servers, ...appliers]) vault.heal(host);
    for (const server of servers) {
      server.cacheDisk.errorRate = 0;
      server.cacheDisk.setTrap(Number.POSITIVE_INFINITY, () => undefined);
      for (const machine of machines) network.heal(machine.host, server.host);
    }
    for (const machine of machines) {
      for (const disk of machine.disks) disk.readErrorRate = 0;
      machine.kernel.freezeFailRate = 0;
      operator.pause(machine.machineId, false);
    }
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
    const { cacheDisk } = server;
    const before = cacheDisk.capacityBytes;
    cacheDisk.capacityBytes = cacheDisk.usedBytes + this.#chance.whole(0, 400) * 1024;
    this.#site.time.after(this.#chance.about(10_000), 'there is space again', () => {
      cacheDisk.capacityBytes = before;
    });
  }

  #rot(server: Server): void {
    server.lostAtMs = this.#site.time.nowMs;
    server.rotted = true;
    const file = server.cacheDisk.rot((path) => !path.startsWith('cache.json'));
    this.#site.time.note(`rot in ${file ?? 'nothing'}`);
    server.kill();
  }

  #secondApplier(): void {
    const [, second] = this.#targets.appliers;
    second?.start();
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
      if (machine.kernel.dropEvent()) this.#site.counted('trace event lost indeed');
    });
  }

  #writeRaw(machine: Machine): void {
    for (let count = 0; count < 60; count += 1)
      this.#site.time.after(count * 150, 'raw write', () => {
        if (!machine.off) machine.workload.writeRaw();
      });
  }
}
