/** A process server that has machines falls silent until another has them, and comes back: how long it took, and what was sent again. */
import type { Chance } from '../sim/chance.ts';
import type { EnduranceSite, ProtectedMachine, Replica } from './site.ts';
import type { Patience } from './waiting.ts';
import type { Watch } from './watch.ts';

export const TAKEOVER_KINDS = [
  'processServerLost',
  'processServerLostWithCache',
  'processServerSuspendedLong',
  'processServerCutOffLong',
] as const;
export type TakeoverKind = (typeof TAKEOVER_KINDS)[number];

/** The promise, from the last heartbeat that came. */
export const MOVED_WITHIN_S = 60;
/** As long as others must be silent: then it may take over. */
const STEADY_MS = 32_000;
const STEADY_WITHIN_MS = 150_000;
const MOVED_WITHIN_MS = 120_000;
const PROTECTED_WITHIN_MS = 180_000;
const FENCED_WITHIN_MS = 120_000;
const SUSPENDED_AT_LEAST_MS = 70_000;

export interface Takeover {
  kind: TakeoverKind;
  machine: string;
  from: string;
  to: string;
  epochBefore: number;
  epochAfter: number;
  /** Wall clock. */
  struckMs: number;
  /** From the old one's last heartbeat to the catalog that names another, s. */
  movedSeconds: number;
  /** From the same to a barrier of the new one in the vault, s. */
  protectedSeconds: number;
  /** From the old one's return until it says that the machine is not its own, s. */
  fencedSeconds: number;
}

export async function takeOver(
  at: { site: EnduranceSite; watch: Watch; patience: Patience },
  wish: { chance: Chance; kind: TakeoverKind },
): Promise<Takeover[]> {
  const { site, watch, patience } = at;
  const { kind, chance } = wish;
  await untilSteady(at);
  const owner = watch.owner(chance.pick(site.machines).machineId)?.processServer;
  const old = site.replicas.find(({ name }) => name === owner);
  if (old === undefined) throw new Error(`no process server is called ${owner}`);
  const moving = site.machines.filter(
    ({ machineId }) => watch.owner(machineId)?.processServer === old.name,
  );
  const before = new Map(moving.map(({ name, machineId }) => [name, watch.owner(machineId)]));
  const struckMs = Date.now();
  await strike(old, { kind, watch });
  try {
    const silentMs = Math.min(watch.lastHeartbeatMs(old.name), struckMs);
    const moved = await Promise.all(
      moving.map((machine) => untilMoved(at, machine, { old, silentMs })),
    );
    const protectedSeconds = await Promise.all(
      moving.map((machine) => untilProtected(at, machine, { silentMs, struckMs })),
    );
    if (kind === 'processServerSuspendedLong')
      await patience.pause(Math.max(0, SUSPENDED_AT_LEAST_MS - (Date.now() - struckMs)));
    const returnedMs = Date.now();
    await heal(old, kind);
    await Promise.all(moving.map((machine) => untilFenced(at, machine, { old, returnedMs })));
    const fencedSeconds = (Date.now() - returnedMs) / 1000;
    return moving.map(({ name }, index) => ({
      ...{ kind, machine: name, from: old.name, fencedSeconds, struckMs },
      to: moved[index]?.to ?? '',
      epochBefore: before.get(name)?.writerEpoch ?? 0,
      epochAfter: moved[index]?.epoch ?? 0,
      movedSeconds: moved[index]?.seconds ?? 0,
      protectedSeconds: protectedSeconds[index] ?? 0,
    }));
  } catch (error) {
    await heal(old, kind);
    throw error;
  }
}

/** Both report, and have for a while; all machines are protected. */
async function untilSteady({
  site,
  watch,
  patience,
}: {
  site: EnduranceSite;
  watch: Watch;
  patience: Patience;
}): Promise<void> {
  await patience.until('both process servers report steadily', STEADY_WITHIN_MS, () => {
    const steady = site.replicas.every(({ name }) => watch.steadyForMs(name) >= STEADY_MS);
    const connected = site.machines.every(
      ({ machineId }) => watch.machine(machineId)?.agent.connected === true,
    );
    return steady && connected ? true : undefined;
  });
}

async function strike(
  { part, wire, volume, ...rest }: Replica,
  { kind, watch }: { kind: TakeoverKind; watch: Watch },
): Promise<void> {
  if (kind === 'processServerSuspendedLong') part.suspend();
  else if (kind === 'processServerCutOffLong') wire.cut();
  else {
    await watch.beforeDeath({ part, wire, volume, ...rest }).catch(() => undefined);
    await part.kill();
    if (kind === 'processServerLostWithCache') volume.wipe();
  }
}

async function heal({ part, wire }: Replica, kind: TakeoverKind): Promise<void> {
  if (kind === 'processServerSuspendedLong') part.resume();
  else if (kind === 'processServerCutOffLong') wire.mend();
  else await part.up();
}

type At = { watch: Watch; patience: Patience };

async function untilMoved(
  { watch, patience }: At,
  { name, machineId }: ProtectedMachine,
  { old, silentMs }: { old: Replica; silentMs: number },
): Promise<{ to: string; epoch: number; seconds: number }> {
  return await patience.until(`${name} leaves ${old.name}`, MOVED_WITHIN_MS, () => {
    const owner = watch.owner(machineId);
    if (owner === undefined || owner.processServer === old.name) return undefined;
    const seconds = (Date.now() - silentMs) / 1000;
    return { to: owner.processServer, epoch: owner.writerEpoch, seconds };
  });
}

async function untilProtected(
  { watch, patience }: At,
  { name, machineId }: ProtectedMachine,
  { silentMs, struckMs }: { silentMs: number; struckMs: number },
): Promise<number> {
  return await patience.until(`${name} is protected by another`, PROTECTED_WITHIN_MS, () => {
    const timeMs = watch.machine(machineId)?.uploadedBarrier?.timeMs ?? 0;
    return timeMs > struckMs ? (Date.now() - silentMs) / 1000 : undefined;
  });
}

async function untilFenced(
  { watch, patience }: At,
  { name, machineId }: ProtectedMachine,
  { old, returnedMs }: { old: Replica; returnedMs: number },
): Promise<void> {
  await patience.until(`${old.name} knows that ${name} is not its own`, FENCED_WITHIN_MS, () => {
    const status = watch.status(old.name);
    if (status === undefined || status.heartbeatMs <= returnedMs) return undefined;
    const still = status.machines.find((one) => one.machineId === machineId);
    return still === undefined || still.fenced !== undefined ? true : undefined;
  });
}
