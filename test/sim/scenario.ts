/**
 * What happens in a run, decided by its seed: how many machines of what size, and which faults when. Each run draws the kinds of faults
 * that it knows, so that some runs are all about one thing.
 */
import type { CacheLimits } from '../../dataplane/journal/cache.ts';
import { Chance } from './chance.ts';
import { heldMoments } from './heldMoments.ts';
import { isRare, rareMoments } from './rareMoments.ts';

export const faultKinds = [
  'agent killed',
  'agent stopped in order',
  'agent suspended',
  'machine rebooted',
  'server killed',
  'server killed in a disk call',
  'server stopped in order',
  'server suspended',
  'server power lost',
  'server power lost in a disk call',
  'server volume lost',
  'server disk full',
  'server disk errors',
  'server disk rots',
  'applier killed',
  'applier killed in a request',
  'applier suspended',
  'second applier',
  'connections reset',
  'link silent',
  'server cut off from the vault',
  'applier cut off from the vault',
  'vault down',
  'vault faulty',
  'machine moved',
  'machine moved there and back',
  'clock jumps',
  'resync asked for',
  'paused',
  'trace overrun',
  'trace event lost',
  'tracing turned off',
  'raw writes',
  'disk read errors',
  'source disk slow',
  'freezes fail',
  'burst of writes',
  'test failover',
  'unplanned failover',
  'failover runner killed',
  ...rareMoments,
  ...heldMoments,
] as const;
export type FaultKind = (typeof faultKinds)[number];

export interface Scenario {
  machines: {
    name: string;
    diskSizes: number[];
    bufferEvents: number;
    writeEveryMs: number;
    finalDeadlineMs: number;
  }[];
  servers: number;
  fill: number;
  policy: {
    crashConsistentSeconds: number;
    appConsistentSeconds: number;
    hooks: { directory: string; timeoutSeconds: number };
  };
  retentionSeconds: number;
  limits: Partial<CacheLimits>;
  cacheBytes: number;
  latencyMs: { network: number; vault: number; sync: number };
  vaultFaultRate: number;
  /** Faults come until then, virtual ms. */
  quietAtMs: number;
  faults: { atMs: number; kind: FaultKind }[];
}

const LEAF = 65536;
/** A failover's runner is away for so long before faults end. */
const LONG: FaultKind = 'held machine goes on unheard';
const LONG_MS = 70_000;
/** Has a stream of draws of its own: what was found at a seed stays there. */
const APART: FaultKind = 'moved back behind another writer';
const APART_SHARE = 0.12;
/** Of runs that have planned failovers beside the faults that they know. */
const PLANNED_SHARE = 0.2;
/** All machines must have a point of after the faults by then. */
export const CONVERGED_WITHIN_MS = 1_500_000;

export function scenarioOf(chance: Chance): Scenario {
  const quietAtMs = chance.between(20_000, 80_000);
  const share = chance.pick([0.08, 0.15, 0.4]);
  const known = faultKinds.filter(
    (kind) => kind !== APART && chance.chance(share) && kind !== LONG,
  );
  const count = known.length === 0 ? 0 : chance.whole(3, 18);
  const faults = Array.from({ length: count }, () => ({
    atMs: chance.between(500, quietAtMs),
    kind: chance.pick(known),
  }));
  // A machine must be replicated before it can be held.
  if (chance.chance(PLANNED_SHARE))
    for (let count = chance.pick([1, 1, 2, 3]); count > 0; count -= 1)
      faults.push({ atMs: chance.between(0.15, 0.9) * quietAtMs, kind: chance.pick(heldMoments) });
  const apart = new Chance(Math.floor(quietAtMs * 1_000));
  if (apart.chance(APART_SHARE))
    faults.push({ atMs: apart.between(0.3, 0.8) * quietAtMs, kind: APART });
  const isLong = faults.some(({ kind }) => kind === LONG);
  // What takes its time begins early enough.
  for (const fault of faults) if (isRare(fault.kind)) fault.atMs *= 0.6;
  return {
    machines: Array.from({ length: chance.pick([1, 1, 2, 2, 3]) }, (_, index) => ({
      name: `m${index + 1}`,
      diskSizes: Array.from({ length: chance.whole(1, 2) }, () => diskSize(chance)),
      bufferEvents: chance.pick([12, 60, 400]),
      writeEveryMs: chance.pick([100, 300, 1_000, 3_000]),
      finalDeadlineMs: chance.pick([15_000, 60_000, 300_000]),
    })),
    servers: 2,
    fill: chance.pick([0, 0.2, 0.7]),
    policy: {
      crashConsistentSeconds: chance.pick([3, 5, 8, 15]),
      appConsistentSeconds: chance.chance(0.3) ? 25 : 0,
      hooks: { directory: '/etc/farshore/hooks.d', timeoutSeconds: 30 },
    },
    retentionSeconds: chance.pick([15, 40, 86_400]),
    limits: {
      logFileBytes: chance.pick([64, 256, 1024]) * 1024,
      segmentBytes: chance.pick([256, 1024, 8192]) * 1024,
      sealAfterMs: chance.pick([2_000, 10_000]),
      minFreeBytes: 256 * 1024,
    },
    cacheBytes: chance.pick([16, 32, 64]) << 20,
    latencyMs: {
      network: chance.pick([0.5, 2, 15]),
      vault: chance.pick([3, 10, 60]),
      sync: chance.pick([1, 4, 20]),
    },
    vaultFaultRate: chance.pick([0, 0, 0.01, 0.05]),
    quietAtMs: quietAtMs + (isLong ? LONG_MS : 0),
    faults: faults.sort((a, b) => a.atMs - b.atMs),
  };
}

/** Whole leaves, or some blocks or sectors more. */
function diskSize(chance: Chance): number {
  const leaves = chance.pick([1, 2, 4, 9, 15, 17, 20]);
  const rest = chance.pick([0, 0, 4096, 512, 20_480, LEAF - 512]);
  return leaves * LEAF + rest;
}
