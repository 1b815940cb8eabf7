/**
 * What a process server must do, decided purely: which machines it gets, whether the list may be written, under which generation.
 *
 * A list that loses many machines at once is more often an accident (a cache that had not filled, a deleted namespace, a wrong
 * manifest) than a wish, so the machines it would drop stay in it until a person confirms with the token of that very removal.
 */
import { createHash } from 'node:crypto';
import {
  type Assignment,
  type AssignmentsDocument,
  PEERS_MAX,
} from '../../vault/documents/assignments.ts';
import type { Bandwidth } from '../../vault/documents/bandwidth.ts';
import type { CatalogDocument } from '../../vault/documents/catalog.ts';
import type { DamagedLeaf } from '../../vault/documents/damagedLeaf.ts';
import { canonical } from '../canonicalJson.ts';

/** More than these many machines, and more than this share of them, leave a list only after a confirmation. */
export const DROP_LIMIT = { machines: 3, share: 0.1 } as const;

export type MachinePolicy = Assignment['policy'];

/** What is known of one machine that a process server is to protect. */
export interface MachineIntent {
  catalog: CatalogDocument;
  paused: boolean;
  policy: MachinePolicy;
  resyncToken?: string;
  /** What an applier found damaged in the replica. */
  repair?: readonly DamagedLeaf[];
}

/** A machine with no disk chosen yet is not assigned: there is nothing to do for it. */
export function assignmentOf(intent: MachineIntent): Assignment | undefined {
  const { catalog } = intent;
  if (catalog.disks.length === 0) return undefined;
  return {
    machineId: catalog.machineId,
    name: catalog.name,
    namespace: catalog.namespace,
    writerEpoch: catalog.writerEpoch,
    disks: catalog.disks,
    dataKey: catalog.dataKey,
    paused: intent.paused,
    policy: intent.policy,
    ...(catalog.finalSync === undefined ? {} : { finalSync: catalog.finalSync }),
    ...(intent.resyncToken === undefined ? {} : { resyncToken: intent.resyncToken }),
    ...repairOf(intent),
  };
}

/** Of the disks that are protected still. */
function repairOf({ catalog, repair = [] }: MachineIntent): Pick<Assignment, 'repair'> {
  const leaves = repair.filter(({ disk }) => catalog.disks.some(({ index }) => index === disk));
  return leaves.length === 0 ? {} : { repair: leaves };
}

export interface AssignmentsInput {
  vaultId: string;
  processServer: string;
  controllerEpoch: number;
  caCertificatePem: string;
  machines: readonly MachineIntent[];
  /** `namespace/name` of machines that belong here but of which too little is known now: their entry stays as it stands. */
  keep: ReadonlySet<string>;
  redirects: Record<string, string[]>;
  /** Endpoints of the other replicas. */
  peers: readonly string[];
  bandwidth: Bandwidth | undefined;
  /** What stands in the vault now; undefined when nothing does. */
  current: AssignmentsDocument | undefined;
  /** A generation that was certainly written before: what follows is higher, even when `current` was lost or forged. */
  generationFloor: number;
  /** spec.confirmRemoval of the ProcessServer. */
  confirmedToken: string | undefined;
}

export interface AssignmentsDecision {
  /** To be signed and written by compare-and-set; undefined when what stands there is right. */
  write: AssignmentsDocument | undefined;
  /** Machines that stay in the list only because nobody has confirmed their removal. */
  awaitingConfirmation: { token: string; machines: readonly Assignment[] } | undefined;
}

export function decideAssignments(input: AssignmentsInput): AssignmentsDecision {
  const known = input.machines.map(assignmentOf).filter((assignment) => assignment !== undefined);
  const knownIds = new Set(known.map((assignment) => assignment.machineId));
  const kept = (input.current?.machines ?? []).filter(
    ({ machineId, namespace, name }) =>
      input.keep.has(`${namespace}/${name}`) && !knownIds.has(machineId),
  );
  const wanted = [...known, ...kept];
  const wantedIds = new Set(wanted.map((assignment) => assignment.machineId));
  const dropped = (input.current?.machines ?? []).filter(
    // One that another process server has now is not lost to anybody.
    ({ machineId }) => !wantedIds.has(machineId) && !Object.hasOwn(input.redirects, machineId),
  );
  const standing = input.current ?? { controllerEpoch: 0, generation: 0, machines: [] };
  const held =
    dropsTooMuch(dropped.length, standing.machines.length) &&
    input.confirmedToken !== removalToken(standing, dropped)
      ? dropped
      : [];
  const next: AssignmentsDocument = {
    vaultId: input.vaultId,
    processServer: input.processServer,
    controllerEpoch: input.controllerEpoch,
    generation: Math.max(standing.generation, input.generationFloor) + 1,
    caCertificatePem: input.caCertificatePem,
    machines: [...wanted, ...held].sort(byMachineId),
    redirects: input.redirects,
    ...(input.peers.length === 0 ? {} : { peers: input.peers.slice(0, PEERS_MAX) }),
    ...(input.bandwidth === undefined ? {} : { bandwidth: input.bandwidth }),
  };
  const unchanged = input.current !== undefined && sameWork(input.current, next);
  return {
    write: unchanged ? undefined : next,
    awaitingConfirmation:
      held.length === 0
        ? undefined
        : { token: removalToken(unchanged ? standing : next, held), machines: held },
  };
}

/** Names one removal from one list: a token that was used stays useless when the same machines are dropped again later. */
function removalToken(
  standing: Pick<AssignmentsDocument, 'controllerEpoch' | 'generation'>,
  dropped: readonly Assignment[],
): string {
  const text = [
    standing.controllerEpoch,
    standing.generation,
    ...dropped.map((one) => one.machineId),
  ];
  return createHash('sha256').update(text.join('|')).digest('hex').slice(0, 16);
}

/** Whether a list that goes from `before` machines and loses `dropped` of them needs a person's yes. */
export function dropsTooMuch(dropped: number, before: number): boolean {
  return dropped > DROP_LIMIT.machines && dropped > before * DROP_LIMIT.share;
}

/** Everything but the generation: a list that says the same is not written again. */
function sameWork(a: AssignmentsDocument, b: AssignmentsDocument): boolean {
  return canonical({ ...a, generation: 0 }) === canonical({ ...b, generation: 0 });
}

function byMachineId(a: Assignment, b: Assignment): number {
  return a.machineId < b.machineId ? -1 : a.machineId > b.machineId ? 1 : 0;
}

/**
 * Which replica protects a machine: the one it has while that exists and lives, else the one with the fewest machines (the lowest
 * index of equals), so that scaling up moves nobody. A silent one is given up only for one that is steady.
 */
export function chooseReplica(options: {
  replicas: readonly string[];
  current: string | undefined;
  load: ReadonlyMap<string, number>;
  /** It has reported before, and not of late. */
  isSilent: (replica: string) => boolean;
  /** It reports, and has for a while. */
  isSteady: (replica: string) => boolean;
}): string | undefined {
  const { replicas, current, isSilent, isSteady } = options;
  if (current !== undefined && replicas.includes(current)) {
    if (!isSilent(current)) return current;
    return emptiest(replicas.filter(isSteady), options.load) ?? current;
  }
  const living = replicas.filter((replica) => !isSilent(replica));
  return emptiest(living, options.load) ?? emptiest(replicas, options.load);
}

function emptiest(
  replicas: readonly string[],
  load: ReadonlyMap<string, number>,
): string | undefined {
  let best: string | undefined;
  for (const replica of replicas)
    if (best === undefined || (load.get(replica) ?? 0) < (load.get(best) ?? 0)) best = replica;
  return best;
}
