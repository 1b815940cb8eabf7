/** The signed lists of machines of a process server's replicas: decided from its duties (assignments.ts), kept current in the vault. */
import type { ProcessServer } from '../../crds/index.ts';
import { FarshoreError } from '../../platform/errors.ts';
import type { AssignmentsDocument } from '../../vault/documents/assignments.ts';
import type { Environment } from '../environment.ts';
import { assertInControl, type ControlledVault, type OpenVault } from '../openvaults/openVaults.ts';
import { readAssignments, writeAssignments } from './assignmentStore.ts';
import { decideAssignments } from './assignments.ts';
import { bandwidthOfEach } from './bandwidth.ts';
import { type Duties, gatherDuties } from './duties.ts';
import type { Replica } from './objects.ts';

export interface KeptLists {
  /** What stands in the vault, of the replica whose generation is lowest; undefined while nothing is known to. */
  assignments: { controllerEpoch: number; generation: number } | undefined;
  /** Machines that stay in a list only until somebody confirms their removal. */
  pending: { token: string; machines: readonly string[] } | undefined;
  /** On all lists. */
  machines: number;
}

/** Rejects with a StoreError, a NotInControlError, AssignmentsContended. */
export async function keepLists(
  environment: Pick<Environment, 'caches'>,
  vault: ControlledVault,
  options: { server: ProcessServer; replicas: readonly Replica[] },
): Promise<KeptLists> {
  const { server, replicas } = options;
  // Nothing is written from half a picture: the vault must have been read once, as the caches have.
  if (vault.observation.observedAt === undefined || !vault.readable)
    return { assignments: undefined, pending: undefined, machines: 0 };
  const names = new Set(replicas.map((replica) => replica.name));
  const duties = gatherDuties(environment, vault, { server, replicas: names });
  const lists: AssignmentsDocument[] = [];
  let pending: KeptLists['pending'];
  for (const { name } of replicas) {
    const kept = await keepList(vault, { server, replica: name, replicas, duties });
    lists.push(kept.standing);
    pending ??= kept.pending;
  }
  const [oldest] = [...lists].sort((a, b) => a.generation - b.generation);
  return {
    pending,
    machines: lists.reduce((sum, list) => sum + list.machines.length, 0),
    assignments:
      oldest === undefined
        ? undefined
        : { controllerEpoch: oldest.controllerEpoch, generation: oldest.generation },
  };
}

async function keepList(
  vault: ControlledVault,
  options: { server: ProcessServer; replica: string; replicas: readonly Replica[]; duties: Duties },
): Promise<{ standing: AssignmentsDocument; pending: KeptLists['pending'] }> {
  const { server, replica, duties } = options;
  const before = await readAssignments(vault, replica);
  const decision = decideAssignments({
    vaultId: vault.document.vaultId,
    processServer: replica,
    controllerEpoch: vault.control.controllerEpoch,
    caCertificatePem: vault.document.ca.certificatePem,
    machines: duties.machines.get(replica) ?? [],
    keep: duties.keep,
    redirects: redirectsOf(vault, { replica, duties, before: before?.document }),
    peers: peersOf(vault, options),
    bandwidth: bandwidthOfEach(server.spec),
    current: before?.document,
    generationFloor: Math.max(
      server.status?.assignments?.generation ?? 0,
      vault.observation.processServer(replica)?.assignments?.generation ?? 0,
    ),
    confirmedToken: server.spec.confirmRemoval,
  });
  if (decision.write !== undefined) await write(vault, decision.write, before);
  const standing = decision.write ?? before?.document;
  if (standing === undefined) throw new TypeError('a list is either written or there');
  const held = decision.awaitingConfirmation;
  return {
    standing,
    pending:
      held === undefined
        ? undefined
        : { token: held.token, machines: held.machines.map((one) => one.name) },
  };
}

/** Machines that moved elsewhere are taken off for good; whoever still runs the old process server sees that it has none. */
export async function emptyList(vault: ControlledVault, replica: string): Promise<void> {
  const before = await readAssignments(vault, replica);
  if (before?.document === undefined || before.document.machines.length === 0) return;
  const { controllerEpoch } = vault.control;
  const generation = before.document.generation + 1;
  const list = { ...before.document, controllerEpoch, generation, machines: [], redirects: {} };
  await write(vault, list, before);
}

async function write(
  vault: ControlledVault,
  list: AssignmentsDocument,
  before: { etag: string } | undefined,
): Promise<void> {
  await assertInControl(vault);
  if (!(await writeAssignments(vault, list, before)))
    throw new AssignmentsContended(list.processServer);
}

/** Where agents of machines that moved are sent: to another replica, or to another ProcessServer that has what this one had. */
function redirectsOf(
  vault: OpenVault,
  options: { replica: string; duties: Duties; before: AssignmentsDocument | undefined },
): Record<string, string[]> {
  const { replica, duties, before } = options;
  const had = [
    ...(before?.machines ?? []).map((machine) => machine.machineId),
    ...Object.keys(before?.redirects ?? {}),
  ];
  const owners = new Map(had.map((id) => [id, vault.observation.catalog(id)?.processServer]));
  for (const [machineId, owner] of duties.owners) owners.set(machineId, owner);
  const redirects: Record<string, string[]> = {};
  for (const [machineId, owner] of owners) {
    if (owner === undefined || owner === replica) continue;
    // None while the owner has not reported: the entry remembers, when the machine has left the list, that it was here.
    redirects[machineId] = vault.observation.processServer(owner)?.endpoints ?? [];
  }
  return redirects;
}

/** Endpoints of the other replicas, as they reported them last. */
function peersOf(
  vault: OpenVault,
  options: { replica: string; replicas: readonly Replica[] },
): string[] {
  return options.replicas
    .filter(({ name }) => name !== options.replica)
    .flatMap(({ name }) => vault.observation.processServer(name)?.endpoints ?? []);
}

/** Somebody else wrote the list between our reading and our writing. */
class AssignmentsContended extends FarshoreError {
  constructor(processServer: string) {
    super(
      'AssignmentsContended',
      `The assignments of process server ${processServer} were changed by somebody else at the same time; they are read again.`,
    );
  }
}
