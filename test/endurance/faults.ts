/**
 * The faults that are struck at random moments. Each hits one part (two never hit the same at once) and is healed after its
 * duration. What takes a machine away from its process server is in takeover.ts.
 */
import type { Chance } from '../sim/chance.ts';
import type { EnduranceSite, ProtectedMachine, Replica } from './site.ts';
import type { Watch } from './watch.ts';

export interface Fault {
  /** What it hits. */
  part: string;
  seconds: number;
  /** Tracking may get lost: the agent of this machine can't follow meanwhile. */
  blinds?: string;
  strike(): Promise<void> | void;
  heal(): Promise<void> | void;
}

interface Kind {
  /** Longest duration, s. */
  longest: number;
  make(site: EnduranceSite, at: { chance: Chance; watch: Watch }): Fault;
}

/** A restart must be over before a process server counts as silent (30 s). */
const RESTART_SECONDS = 4;
/** Past every timeout of who waits for whom: 30 s on the wire, 60 s for an answer, leases and locks of 15 to 60 s. */
const SUSPENDED_SECONDS = [65, 95] as const;

export const KINDS: Readonly<Record<string, Kind>> = {
  agentKilled: {
    longest: RESTART_SECONDS,
    make: (site, { chance }) => {
      const { name, agent } = chance.pick(site.machines);
      const seconds = chance.between(0, RESTART_SECONDS);
      return { ...killed(agent, seconds), blinds: name };
    },
  },
  processServerKilled: {
    longest: RESTART_SECONDS,
    make: (site, { chance, watch }) => {
      const replica = busy(site, { chance, watch });
      return killed(replica.part, chance.between(0, RESTART_SECONDS), () =>
        watch.beforeDeath(replica),
      );
    },
  },
  applierKilled: {
    longest: 20,
    make: (site, { chance }) => killed(site.applier, chance.between(0, 20)),
  },
  operatorKilled: {
    longest: 20,
    make: (site, { chance }) => killed(site.operator, chance.between(0, 20)),
  },
  cacheDeleted: {
    longest: RESTART_SECONDS,
    make: (site, { chance, watch }) => {
      const replica = busy(site, { chance, watch });
      const { part, volume } = replica;
      const kill = killed(part, chance.between(0, 2), () => watch.beforeDeath(replica));
      return {
        ...kill,
        heal: async () => {
          volume.wipe();
          await part.up();
        },
      };
    },
  },
  agentSuspended: {
    longest: SUSPENDED_SECONDS[1],
    make: (site, { chance }) => {
      const { name, agent } = chance.pick(site.machines);
      return { ...suspended(agent, chance.between(...SUSPENDED_SECONDS)), blinds: name };
    },
  },
  applierSuspended: {
    longest: 150,
    // A lease's holder counts as dead after 120 s.
    make: (site, { chance }) => suspended(site.applier, chance.between(125, 150)),
  },
  operatorSuspended: {
    longest: SUSPENDED_SECONDS[1],
    make: (site, { chance }) => suspended(site.operator, chance.between(...SUSPENDED_SECONDS)),
  },
  agentCutOff: {
    longest: 60,
    make: (site, { chance }) => cut(chance.pick(site.machines), chance.between(5, 60)),
  },
  applierCutOff: {
    longest: 60,
    make: (site, { chance }) =>
      cut({ name: 'applier', wire: site.applierWire }, chance.between(5, 60)),
  },
  processServerCutOff: {
    longest: 18,
    make: (site, { chance, watch }) => cut(busy(site, { chance, watch }), chance.between(4, 18)),
  },
  agentThrottled: {
    longest: 60,
    make: (site, { chance }) => throttled(chance.pick(site.machines), chance),
  },
  processServerThrottled: {
    longest: 60,
    make: (site, { chance, watch }) => throttled(busy(site, { chance, watch }), chance),
  },
  storageStopped: {
    longest: 45,
    make: (site, { chance }) => ({
      part: 'storage',
      seconds: chance.between(3, 45),
      strike: () => site.cloud.azurite.stop(),
      heal: () => site.cloud.azurite.restart(),
    }),
  },
  storageSuspended: {
    longest: 75,
    make: (site, { chance }) => ({
      part: 'storage',
      seconds: chance.between(10, 75),
      strike: () => signal(site.cloud.azurite.pid, 'SIGSTOP'),
      heal: () => signal(site.cloud.azurite.pid, 'SIGCONT'),
    }),
  },
  cacheFull: {
    longest: 45,
    make: (site, { chance, watch }) => {
      const { name, volume } = busy(site, { chance, watch });
      return {
        part: `${name}'s cache`,
        seconds: chance.between(15, 45),
        strike: () => volume.fill(),
        heal: () => volume.relieve(),
      };
    },
  },
};

type Killable = EnduranceSite['operator'];

function killed(part: Killable, seconds: number, before?: () => Promise<void>): Fault {
  return {
    part: part.name,
    seconds,
    strike: async () => {
      await before?.().catch(() => undefined);
      await part.kill();
    },
    heal: () => part.up(),
  };
}

function suspended(part: Killable, seconds: number): Fault {
  return {
    part: part.name,
    seconds,
    strike: () => part.suspend(),
    heal: () => part.resume(),
  };
}

type Wired = Pick<Replica, 'name' | 'wire'> | Pick<ProtectedMachine, 'name' | 'wire'>;

function cut({ name, wire }: Wired, seconds: number): Fault {
  return {
    part: `${name}'s wire`,
    seconds,
    strike: () => wire.cut(),
    heal: () => wire.mend(),
  };
}

function throttled({ name, wire }: Wired, chance: Chance): Fault {
  const bytesPerSecond = chance.whole(48, 512) << 10;
  return {
    part: `${name}'s wire`,
    seconds: chance.between(15, 60),
    strike: () => wire.throttle(bytesPerSecond),
    heal: () => wire.unthrottle(),
  };
}

/** A process server that has machines, if there is one. */
function busy(site: EnduranceSite, { chance, watch }: { chance: Chance; watch: Watch }): Replica {
  const owners = new Set(
    site.machines.map(({ machineId }) => watch.owner(machineId)?.processServer),
  );
  const some = site.replicas.filter(({ name }) => owners.has(name));
  return chance.pick(some.length > 0 ? some : site.replicas);
}

function signal(pid: number | undefined, name: NodeJS.Signals): void {
  if (pid !== undefined) process.kill(pid, name);
}
