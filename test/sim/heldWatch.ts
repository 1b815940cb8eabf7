/**
 * Machines that are held frozen behind the last barrier of a planned failover (invariant 7, and that production never waits): held only
 * once the vault has that barrier, let go when nobody wants it any more, and brought up as they were held, byte for byte.
 */
import type { FailoverDocument } from '../../vault/documents/failover.ts';
import type { MemoryCompute } from '../fakes/memoryCompute.ts';
import { compareImages } from './images.ts';
import type { Frozen, Held } from './kernel.ts';
import { DEADLINE_MS, type Machine } from './machine.ts';
import type { Candidate } from './oracle.ts';

/** How long a write may be held back beyond the deadline: what the watchdog takes. */
const STALL_GRACE_MS = 100;
/** From an agent's word that its machine does not stand still to its being known: a process server may miss it until the line counts as dead. */
const KNOWN_WITHIN_MS = 45_000;
/** An agent that is awake sees a write, or a thaw, so soon. */
const NOTICED_WITHIN_MS = 10_000;
/** From its agent's first word that it holds the machine to its being remembered. */
const HELD_SURELY_MS = 2_000;
/** Without faults, a machine that nobody wants held is let go so soon: lists are read, journals opened, connections made anew. */
const LET_GO_WITHIN_MS = 150_000;

export interface HeldWatchDeps {
  breach: (invariant: string, detail: string) => void;
  nowMs: () => number;
  candidates: (machineId: string, lsn: bigint) => readonly Candidate[];
  /** The journal in the vault has this barrier. */
  isInVault: (machineId: string, barrier: { lsn: bigint; askedMs: number | undefined }) => boolean;
  isInAzure: (machineId: string) => boolean;
}

/** What became of one hold, as others could know it. */
interface Story {
  held: Held;
  /** The agent said that the machine stands still, for the first time. */
  affirmedMs?: number;
  /** And said so although it went on. */
  lieMs?: number;
  /** Since when the agent does not say it any more. */
  deniedMs?: number;
  /** Why its agent may let it go. */
  excuse?: string;
}

interface Known {
  machine: Machine;
  /** Of what the newest list asks: which failover's last barrier, which resync. */
  wanted: string | undefined;
  wantedSinceMs: number;
  resyncToken: string | undefined;
  stories: Story[];
  /** By failover: when it took the disks. */
  taken: Map<string, number>;
}

const NEVER = Number.POSITIVE_INFINITY;

export class HeldWatch {
  readonly #deps: HeldWatchDeps;
  readonly #known = new Map<string, Known>();
  /** The barrier that was made of a freeze. */
  readonly #made = new WeakMap<Frozen, { lsn: bigint; askedMs: number | undefined }>();
  /** Of each connection: barriers that were asked for as last ones. */
  readonly #finals = new Map<number, Set<number>>();
  #calmSinceMs: number | undefined;

  constructor(deps: HeldWatchDeps) {
    this.#deps = deps;
  }

  begin(machines: Iterable<Machine>): void {
    for (const machine of machines) {
      const known: Known = {
        machine,
        wanted: undefined,
        wantedSinceMs: 0,
        resyncToken: undefined,
        stories: [],
        taken: new Map(),
      };
      this.#known.set(machine.machineId, known);
      machine.kernel.onHeld = (held) => {
        if (held.ended === undefined) this.#began(known, held);
        else this.#ended(known, held);
      };
    }
  }

  /** No fault comes any more. */
  calm(): void {
    this.#calmSinceMs = this.#deps.nowMs();
  }

  // ------------------------------------------------------------------------------------------------------------ told

  prepared(connection: number, barrier: { id: number; final: boolean }): void {
    if (!barrier.final) return;
    const finals = this.#finals.get(connection) ?? new Set();
    this.#finals.set(connection, finals.add(barrier.id));
  }

  freezeAsked(machine: Machine, connection: number, id: number): void {
    if (this.#finals.get(connection)?.has(id)) machine.kernel.finalIsAsked = true;
  }

  barrierSent(frozen: Frozen, barrier: { lsn: bigint; askedMs: number | undefined }): void {
    this.#made.set(frozen, barrier);
  }

  agentSaid(machineId: string, standsStillFor: string | undefined): void {
    const known = this.#known.get(machineId);
    const story = known?.stories.at(-1);
    if (known === undefined || story === undefined) return;
    const nowMs = this.#deps.nowMs();
    if (standsStillFor === undefined) {
      story.deniedMs ??= nowMs;
      return;
    }
    delete story.deniedMs;
    story.affirmedMs ??= nowMs;
    if (nowMs - movedMs(story.held) < NOTICED_WITHIN_MS) return;
    // One that slept says it once more before it looks.
    story.lieMs ??= nowMs;
    if (nowMs - story.lieMs > NOTICED_WITHIN_MS)
      this.#deps.breach('7', `the agent of ${known.machine.name} says that it stands still`);
  }

  resyncDemanded(machineId: string): void {
    this.#excuse(machineId, 'a resync is demanded');
  }

  listPut(body: Uint8Array): void {
    const { payload } = JSON.parse(new TextDecoder().decode(body)) as { payload: string };
    const { machines } = JSON.parse(payload) as {
      machines: { machineId: string; finalSync?: { failover: string }; resyncToken?: string }[];
    };
    for (const { machineId, finalSync, resyncToken } of machines) {
      const known = this.#known.get(machineId);
      if (known === undefined) continue;
      if (known.resyncToken !== resyncToken) this.#excuse(machineId, 'a resync is asked for');
      known.resyncToken = resyncToken;
      if (known.wanted === finalSync?.failover) continue;
      this.#excuse(machineId, 'the failover is cancelled');
      known.wanted = finalSync?.failover;
      known.wantedSinceMs = this.#deps.nowMs();
    }
  }

  /** A failover hands the disks to Azure. */
  taken(machineId: string, failover: string): void {
    const taken = this.#known.get(machineId)?.taken;
    if (taken?.has(failover) === false) taken.set(failover, this.#deps.nowMs());
  }

  #excuse(machineId: string, why: string): void {
    const story = this.#known.get(machineId)?.stories.at(-1);
    if (story !== undefined) story.excuse ??= why;
  }

  #began({ machine, stories, wanted }: Known, held: Held): void {
    const { breach, isInVault } = this.#deps;
    // It may hear of the list only now.
    stories.push({
      held,
      ...(wanted === undefined ? { excuse: 'the failover is cancelled' } : {}),
    });
    const barrier = this.#made.get(held.frozen);
    if (barrier === undefined) breach('7', `${machine.name} is held without a barrier`);
    else if (!isInVault(machine.machineId, barrier))
      breach('7', `${machine.name} is held, and the vault does not have barrier ${barrier.lsn}`);
  }

  /** An agent that was killed as it began to hold does not know whether it does, and thaws; any other goes on holding. */
  #ended({ machine, stories }: Known, held: Held): void {
    const story = stories.find((one) => one.held === held);
    if (story === undefined || held.ended?.by !== 'agent') return;
    const { affirmedMs = NEVER, excuse } = story;
    const isKnown = held.ended.atMs - affirmedMs > HELD_SURELY_MS;
    const { hidWrites, isOn } = machine.kernel.trace;
    if (!isKnown || excuse !== undefined || held.writtenMs !== undefined) return;
    if (hidWrites || !isOn) return;
    this.#deps.breach('7', `${machine.name} was held, and its agent thawed it for no reason`);
  }

  // ---------------------------------------------------------------------------------------------------------- judged

  look(): void {
    for (const known of this.#known.values()) {
      this.#lookAtStalls(known.machine);
      this.#lookAtHeld(known);
    }
  }

  #lookAtStalls({ name, kernel, limits }: Machine): void {
    kernel.noteStalls();
    const { ordinary, final } = kernel.longestStallMs;
    const { breach } = this.#deps;
    if (ordinary > DEADLINE_MS + STALL_GRACE_MS)
      breach('Production never waits', `${name}: a write waited ${ordinary} ms`);
    if (final > limits.finalDeadlineMs + STALL_GRACE_MS)
      breach('Production never waits', `${name}: a write waited ${final} ms for a last barrier`);
  }

  /** Nobody stays frozen for nothing. */
  #lookAtHeld({ machine, stories, wanted, wantedSinceMs }: Known): void {
    const { breach, isInAzure, nowMs } = this.#deps;
    const story = stories.at(-1);
    const calmMs = this.#calmSinceMs;
    if (story === undefined || story.held.ended !== undefined || calmMs === undefined) return;
    if (isInAzure(machine.machineId)) return;
    const since = (ms: number) => nowMs() - Math.max(ms, calmMs, story.held.sinceMs);
    if (wanted === undefined && since(wantedSinceMs) > LET_GO_WITHIN_MS)
      breach('Production never waits', `${machine.name} is held, and nobody wants it to be`);
    else if (since(story.deniedMs ?? NEVER) > LET_GO_WITHIN_MS)
      breach('Production never waits', `${machine.name} is held, and its agent does not say so`);
  }

  /** What came up is the source as it was held, and the source stood still until Azure had its disks. */
  failoverEnded({ name, request, finalBarrier }: FailoverDocument, disks: FailoverDisks): void {
    const known = this.#known.get(request.machineId);
    if (request.type !== 'Planned' || known === undefined) return;
    const { breach, candidates } = this.#deps;
    const lsn = finalBarrier?.lsn ?? 0n;
    const frozen = candidates(request.machineId, lsn).map((candidate) => candidate.frozen);
    const story = known.stories.findLast(({ held }) => frozen.includes(held.frozen));
    if (story === undefined) {
      breach('7', `${name} came up from barrier ${lsn}, and the source was not held behind it`);
      return;
    }
    this.#checkStoodStill(name, known, story);
    for (const { disk, index, body } of disks) {
      const differs = compareImages(body, story.held.images[index] ?? []);
      if (differs !== undefined)
        breach('7', `${name}: disk ${disk} differs from the held one at byte ${differs}`);
    }
  }

  /** Who thaws it behind the agent's back just then is not known in time; what the agent has said must be. */
  #checkStoodStill(
    name: string,
    { machine, taken }: Known,
    { held, deniedMs = NEVER }: Story,
  ): void {
    const takenMs = taken.get(name) ?? NEVER;
    if (movedMs(held) >= takenMs || takenMs - deniedMs <= KNOWN_WITHIN_MS) return;
    const at = [takenMs, movedMs(held), deniedMs].map((ms) => Math.round(ms));
    this.#deps.breach(
      '7',
      `${name} took the disks of ${machine.name} at ${at[0]}, which went on at ${at[1]} and said so at ${at[2]}`,
    );
  }
}

/** When the source's disks, or who writes to them, went on. */
function movedMs({ writtenMs = NEVER, ended }: Held): number {
  return Math.min(writtenMs, ended?.atMs ?? NEVER);
}

export type FailoverDisks = readonly { disk: string; index: number; body: Uint8Array }[];

/** What a failover's disks hold in Azure. */
export function failoverDisks(document: FailoverDocument, compute: MemoryCompute): FailoverDisks {
  return (document.disks ?? []).map(({ index, name, managedDisk }) => ({
    disk: name,
    index,
    body: compute.disks.get(managedDisk.id ?? '')?.body ?? new Uint8Array(),
  }));
}
