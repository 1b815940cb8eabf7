/**
 * Faults that chance alone would hardly ever bring at their moment: each brings about a situation in which something is under way, and
 * strikes then.
 */
import type { Chance } from './chance.ts';
import { type Later, slowWrites, thawWhileRead } from './earlyThaw.ts';
import type { FaultTargets } from './faults.ts';
import type { Life } from './life.ts';
import type { Machine } from './machine.ts';
import type { Server } from './server.ts';
import type { Site } from './site.ts';

const SLOW_READ_MS = 1_500;
/** Disks that are never at rest: a write comes to each more often than the account of its sectors needs to balance. */
const STORM_EVERY_MS = 1.3;
const FEW = 7;
const BREEZE_EVERY_MS = 60;
/** As long as the agent waits for that moment (dataplane/agent/machineCapture.ts). */
const BASELINE_PATIENCE_MS = 3_000;
const STORM_EVENTS = 400;
const STORM_MS = 7_500;
/** At the latest. */
const MOVED_BACK_MS = 40_000;

export const rareMoments = [
  'server overtaken in its claim',
  'volume lost after an upload',
  'volume lost after a resync without the vault',
  'agent suspended while frozen',
  'agent killed on a busy disk',
  'agent struck in a slow read',
  'tracking lost behind a pass',
  'somebody else thaws',
  'power lost after an acknowledgement',
  'replica write lands late',
  'moved back behind another writer',
] as const;
export type RareMoment = (typeof rareMoments)[number];

export function isRare(kind: string): kind is RareMoment {
  return (rareMoments as readonly string[]).includes(kind);
}

export interface RareMomentDeps {
  site: Site;
  targets: FaultTargets;
  chance: Chance;
  suspend: (life: Life) => void;
  losePower: (server: Server) => void;
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
      'agent struck in a slow read': () => this.#strikeReading(machine),
      'tracking lost behind a pass': () => this.#loseBehindPass(machine),
      'somebody else thaws': () => thawWhileRead(machine, 'atNextFreeze', this.#lately),
      'power lost after an acknowledgement': () => this.#losePower(server, machine),
      'replica write lands late': () => this.#delayWrite(machine),
      'moved back behind another writer': () => this.#moveBack(server, machine),
    };
    strikes[kind]();
  }

  /** What lasted ends. */
  end(): void {
    const { oracle } = this.#deps.site;
    oracle.atAcknowledgement = undefined;
    oracle.atData = undefined;
    for (const machine of this.#deps.targets.machines) {
      machine.kernel.atNextFreeze = undefined;
      machine.kernel.trace.onDrain = undefined;
      machine.runDisk.onChange = undefined;
      for (const disk of machine.disks) disk.writeMs = 1.5;
    }
  }

  /** It must claim, for it has nothing; another one does so meanwhile, under a higher epoch. */
  #overtake(server: Server, machine: Machine): void {
    const { site, chance } = this.#deps;
    server.volumeLost();
    site.vault.layAmbush({
      host: server.host,
      what: new RegExp(`^(head|list|get|putIfAbsent) (journal|points)/${machine.machineId}`),
      when: chance.pick(['asked', 'done']),
      calls: chance.whole(1, 4),
      sprung: () => {
        // For long enough that the other has claimed when it goes on.
        server.life.stop();
        site.time.after(chance.between(6_000, 25_000), 'goes on', () => server.life.goOn());
        this.#move(machine);
      },
    });
  }

  #move({ machineId }: Machine): void {
    const { site, targets } = this.#deps;
    targets.operator
      .move(machineId)
      .catch((error: unknown) => site.time.note(`not done: ${String(error)}`));
  }

  /** Of several barriers that waited for the vault only the first are there; more of them came between two uploads. */
  #loseAfterUpload(server: Server, machine: Machine): void {
    const { chance } = this.#deps;
    const lose = () => this.#later(chance.between(20, 1_500), () => server.volumeLost());
    const uploadAnd = (then: () => void) =>
      this.#cutOffAnd(server, chance.between(3_000, 16_000), {
        what: new RegExp(`^putIfAbsent journal/${machine.machineId}`),
        then,
      });
    uploadAnd(chance.chance(0.3) ? lose : () => uploadAnd(lose));
  }

  #cutOffAnd(server: Server, forMs: number, next: { what: RegExp; then: () => void }): void {
    const { vault } = this.#deps.site;
    vault.cutOff(server.host);
    this.#later(forMs, () => {
      vault.heal(server.host);
      const { what, then: sprung } = next;
      vault.layAmbush({ host: server.host, what, when: 'done', calls: 1, sprung });
    });
  }

  /** The resync finds in the cache what the vault never gets. */
  #loseAfterResync(server: Server, machine: Machine): void {
    const { site, chance } = this.#deps;
    site.vault.cutOff(server.host);
    machine.workload.burst(chance.whole(5, 30));
    this.#later(chance.between(4_000, 12_000), () => {
      machine.kernel.trace.turnOff();
      this.#later(chance.between(2_500, 9_000), () => {
        server.volumeLost();
        this.#later(chance.between(0, 5_000), () => site.vault.heal(server.host));
      });
    });
  }

  /** Its cache holds what never came to the vault, and another has written there since: it must not go on from it. */
  #moveBack(server: Server, machine: Machine): void {
    const { site, targets, chance } = this.#deps;
    const { machineId, workload } = machine;
    const other = targets.servers.find((one) => one !== server);
    if (other === undefined) return;
    const back = () => {
      if (!server.down) return;
      server.down = false;
      server.start();
    };
    site.vault.cutOff(server.host);
    workload.burst(chance.whole(5, 30));
    this.#later(chance.between(4_000, 12_000), () => {
      server.kill();
      server.down = true;
      site.vault.heal(server.host);
      site.time.after(MOVED_BACK_MS, `${server.name} is back`, back);
      this.#move(machine);
      const sprung = () => {
        this.#move(machine);
        site.time.after(chance.between(100, 4_000), `${server.name} is back`, back);
      };
      // The first is the other's claim.
      const what = new RegExp(`^putIfAbsent journal/${machineId}`);
      const calls = chance.whole(2, 4);
      site.vault.layAmbush({ host: other.host, what, when: 'done', calls, sprung });
    });
  }

  /** For longer than the deadline or not; what is written when it thaws may be on its way for a while. */
  #suspendFrozen(machine: Machine): void {
    const { chance, suspend } = this.#deps;
    if (chance.chance(0.6)) slowWrites(machine, this.#lately);
    machine.kernel.atNextFreeze = () => {
      const { life } = machine;
      // Little is read, so it is soon over.
      this.#later(chance.between(0, 8), () => suspend(life));
    };
  }

  /** Begins to track anew in a storm of writes, saves, takes a few events more, and dies; after that nothing covers up what it forgot. */
  #killBusy(machine: Machine): void {
    const { kernel, runDisk } = machine;
    const { chance } = this.#deps;
    let isOver = false;
    let isSaved = false;
    let tracedSinceMs: number | undefined;
    const { time } = this.#deps.site;
    const write = () => {
      if (isOver || machine.off) return;
      machine.workload.writeSmall();
      if (!kernel.trace.isOn) tracedSinceMs = undefined;
      else tracedSinceMs ??= time.nowMs;
      // Dense while the agent waits for a moment of rest; then so that few events come between a save and the kill.
      const isAwaited = time.nowMs - (tracedSinceMs ?? 0) < BASELINE_PATIENCE_MS;
      const everyMs = (isAwaited ? STORM_EVERY_MS : BREEZE_EVERY_MS) / machine.disks.length;
      this.#later(everyMs * chance.between(0.5, 1.5), write);
    };
    const { bufferEvents } = kernel.trace;
    kernel.trace.bufferEvents = Math.max(bufferEvents, STORM_EVENTS);
    kernel.trace.turnOff();
    // The resync must take long enough for what came in the storm to be drained before the save.
    for (const disk of machine.disks) disk.readMs = 60;
    write();
    runDisk.onChange = (operation, path) => {
      isSaved ||= operation === 'rename' && path === 'state' && kernel.trace.isOn;
    };
    kernel.trace.onDrain = (events) => {
      if (isOver || !isSaved || events === 0) return;
      // So many would show.
      isSaved = events <= FEW;
      if (!isSaved) return;
      isOver = true;
      time.after(0, 'killed on a busy disk', () => machine.killAgent());
    };
    this.#later(STORM_MS, () => {
      isOver = true;
      kernel.trace.bufferEvents = bufferEvents;
      for (const disk of machine.disks) disk.readMs = 2;
      kernel.trace.onDrain = undefined;
      runDisk.onChange = undefined;
    });
  }

  /** What is being read is neither dirty nor sent, and its hash may cover more than what is sent of it. */
  #strikeReading(machine: Machine): void {
    const { chance, site } = this.#deps;
    const { workload } = machine;
    workload.burst(chance.whole(3, 20));
    for (const disk of machine.disks) disk.readMs = SLOW_READ_MS;
    // Few writes with rest between them: each has the agent save what it knows.
    workload.stop();
    const forMs = chance.between(2_000, 12_000);
    for (let ms = 0; ms < forMs; ms += chance.between(400, 900))
      this.#later(ms, () => {
        if (!machine.off) workload.writeSmall();
      });
    const kills = chance.chance(0.6);
    site.time.after(forMs, 'struck in a slow read', () => {
      if (machine.off) return;
      workload.start();
      for (const disk of machine.disks) disk.readMs = 2;
      if (this.#deps.over()) return;
      if (kills) machine.killAgent();
      else machine.kernel.trace.turnOff();
    });
  }

  /** Hashes that were sent cover blocks that were not, and nothing is written any more before the resync asks for them. */
  #loseBehindPass(machine: Machine): void {
    const { site, chance } = this.#deps;
    const { kernel, workload, machineId } = machine;
    let isOver = false;
    const write = () => {
      if (isOver || machine.off) return;
      workload.writeSmall();
      this.#later(BREEZE_EVERY_MS * chance.between(0.2, 1), write);
    };
    write();
    site.oracle.atData = (sender) => {
      const isBarrier = site.time.nowMs - (kernel.frozen?.startedMs ?? 0) < 500;
      if (sender !== machineId || isBarrier || !kernel.trace.isOn) return;
      site.oracle.atData = undefined;
      isOver = true;
      workload.stop();
      this.#later(chance.between(0, 30), () => kernel.trace.turnOff());
      site.time.after(5_000, 'programs go on', () => {
        if (!machine.off) workload.start();
      });
    };
    this.#later(STORM_MS, () => {
      isOver = true;
    });
  }

  #losePower(server: Server, machine: Machine): void {
    const { site, chance, losePower } = this.#deps;
    site.oracle.atAcknowledgement = (machineId) => {
      if (machineId !== machine.machineId) return;
      site.oracle.atAcknowledgement = undefined;
      this.#later(chance.between(0, 3), () => losePower(server));
    };
  }

  /** Others of the same pages come first. */
  #delayWrite(machine: Machine): void {
    const { site, targets, chance } = this.#deps;
    const applier = targets.appliers[0];
    if (applier === undefined) return;
    machine.workload.burst(chance.whole(3, 12));
    site.vault.delayNext({
      host: applier.host,
      what: new RegExp(`^write replicas/${machine.machineId}/.*vhd`),
      calls: chance.whole(1, 6),
      landsMs: chance.between(6_000, 25_000),
    });
  }

  get #lately(): Later {
    return { chance: this.#deps.chance, later: (ms, act) => this.#later(ms, act) };
  }

  #later(ms: number, act: () => void): void {
    this.#deps.site.time.after(ms, 'rare moment', () => {
      if (!this.#deps.over()) act();
    });
  }
}
