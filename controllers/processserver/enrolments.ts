/** Taking in process servers (by the one-time token) and agents (by the passphrase): decided here, answered in the vault. */
import { type ProcessServer, type ProtectedVM, Reason } from '../../crds/index.ts';
import type { EnrolmentRequest } from '../../vault/documents/enrolment.ts';
import { agentRequestMac, passphraseKey, sameMac } from '../../vault/enrolmentProof.ts';
import { type Environment, namespaceOf } from '../environment.ts';
import {
  acceptance,
  admitByToken,
  answer,
  type Refusal,
  refused,
  requestDer,
} from '../openvaults/enrolment.ts';
import type { PendingEnrolment } from '../openvaults/observation.ts';
import type { ControlledVault } from '../openvaults/openVaults.ts';
import { conditionOf } from '../runtime/conditions.ts';
import type { Happening } from '../runtime/eventRecorder.ts';
import { secretText } from '../secrets.ts';
import { passesByItself } from '../summary.ts';
import { hostsOf, type Replica } from './objects.ts';

/** A passphrase takes 0.1 s of CPU to check, on purpose; more than these wait for the next visit. */
const AGENTS_PER_VISIT = 5;

export interface EnrolmentOutcome {
  what: string;
  refusal: Refusal | undefined;
  /** Of an agent that was taken in. */
  machine?: string;
}

/** Answers what asks for this replica's certificate. `spent`: its bootstrap file needs a new token. */
export async function admitReplica(
  environment: Pick<Environment, 'clock'>,
  vault: ControlledVault,
  options: { replica: string; token: string; secret: string; endpoints: readonly string[] },
): Promise<{ outcomes: EnrolmentOutcome[]; spent: boolean }> {
  const { replica, token, secret, endpoints } = options;
  const outcomes: EnrolmentOutcome[] = [];
  let spent = false;
  for (const pending of pendingOf(vault, 'processserver')) {
    const { csrPem, name } = pending.request;
    if (name !== replica) continue;
    const admitted = await admitByToken(environment, vault, {
      kind: 'processserver',
      pending,
      token,
      secret,
      issueCertificate: () =>
        vault.authority.issueProcessServer({ csrPem, name: replica, hosts: hostsOf(endpoints) }),
    });
    spent ||= admitted.spent;
    outcomes.push({ what: `Process server ${replica}`, refusal: admitted.refusal });
  }
  return { outcomes, spent };
}

/**
 * Answers agents that came through one of the replicas, and has their machines looked at. Whether some wait for the next visit.
 * Rejects with a KubeError, a SecretError, a StoreError, a NotInControlError.
 */
export async function admitWaitingAgents(
  environment: Environment,
  vault: ControlledVault,
  options: { server: ProcessServer; replicas: readonly Replica[] },
): Promise<boolean> {
  const { caches, kube } = environment;
  const { server, replicas } = options;
  const namespace = namespaceOf(server);
  const { passphraseSecretRef } = server.spec;
  const passphrase = await secretText(
    kube,
    { namespace, name: passphraseSecretRef.name },
    passphraseSecretRef.key,
  );
  const { outcomes, more } = await admitAgents(vault, {
    server,
    replicas: new Set(replicas.map((replica) => replica.name)),
    // A trailing newline is the editor's, not the passphrase's.
    passphrase: passphrase.replace(/\r?\n$/, ''),
    findMachine: (name) => caches.machines.get(`${namespace}/${name}`),
  });
  tellOutcomes(environment, server, outcomes);
  for (const { machine } of outcomes)
    if (machine !== undefined) environment.enqueue('machines', `${namespace}/${machine}`);
  return more;
}

interface AgentContext {
  server: ProcessServer;
  replicas: ReadonlySet<string>;
  passphrase: string;
  findMachine(name: string): ProtectedVM | undefined;
}

/** Answers agents that came through one of the replicas. `more`: some wait for the next visit. */
async function admitAgents(
  vault: ControlledVault,
  context: AgentContext,
): Promise<{ outcomes: EnrolmentOutcome[]; more: boolean }> {
  const waiting = pendingOf(vault, 'agent').filter(
    ({ request }) => request.via !== undefined && context.replicas.has(request.via),
  );
  const outcomes: EnrolmentOutcome[] = [];
  for (const pending of waiting.slice(0, AGENTS_PER_VISIT))
    outcomes.push(await admitAgent(vault, context, pending));
  return { outcomes, more: waiting.length > AGENTS_PER_VISIT };
}

async function admitAgent(
  vault: ControlledVault,
  context: AgentContext,
  { id, request }: PendingEnrolment,
): Promise<EnrolmentOutcome> {
  const what = `Machine ${request.name}`;
  const proven = proveAgent({ id, request, passphrase: context.passphrase });
  const machine = 'outcome' in proven ? undefined : context.findMachine(request.name);
  const refusal =
    'outcome' in proven ? proven : refuseMachine({ request, machine, server: context.server });
  const machineId = machine?.status?.machineId;
  if ('outcome' in proven || refusal !== undefined || machineId === undefined) {
    const no = refusal ?? notReady(request.name, undefined);
    await answer(vault, id, no);
    return { what, refusal: no };
  }
  const certificatePem = await vault.authority.issueMachine({ csrPem: request.csrPem, machineId });
  vault.observation.noteOfferedDisks(machineId, request.disks ?? []);
  const caCertificatePem = vault.document.ca.certificatePem;
  await answer(
    vault,
    id,
    acceptance({ key: proven.key, certificatePem, caCertificatePem, machineId }),
  );
  return { what, refusal: undefined, machine: request.name };
}

/** The passphrase comes first: who does not know it learns nothing of which machines there are. */
function proveAgent(options: {
  id: string;
  request: EnrolmentRequest;
  passphrase: string;
}): { key: Uint8Array } | Refusal {
  const { id, request, passphrase } = options;
  const csrDer = requestDer(id, request);
  if ('outcome' in csrDer) return csrDer;
  if (request.proof === undefined)
    return refused('RequestInvalid', 'The request lacks the proof of the passphrase.');
  const key = passphraseKey({ passphrase, nonce: request.proof.nonce });
  return sameMac(agentRequestMac({ key, csrDer, name: request.name }), request.proof.mac)
    ? { key }
    : refused(
        'WrongPassphrase',
        `The passphrase that machine ${request.name} was given is not that of process server ${request.via ?? ''}. Take it from the Secret that the ProcessServer's spec.passphraseSecretRef names.`,
      );
}

/** Why an agent gets no certificate for a machine; undefined when it does. */
export function refuseMachine(options: {
  request: EnrolmentRequest;
  machine: ProtectedVM | undefined;
  server: ProcessServer;
}): Refusal | undefined {
  const { request, machine, server } = options;
  const { name } = server.metadata;
  if (machine === undefined || machine.metadata.deletionTimestamp !== undefined)
    return refused(
      'UnknownMachine',
      `There is no ProtectedVM ${request.name} in namespace ${namespaceOf(server)}. Create it first, then enrol again.`,
    );
  if (machine.spec.processServerRef.name !== name)
    return refused(
      'OtherProcessServer',
      `ProtectedVM ${request.name} belongs to process server ${machine.spec.processServerRef.name}, not ${name}. Enrol there, or correct spec.processServerRef.`,
    );
  const accepted = conditionOf(machine, 'Accepted');
  if (accepted?.status === 'False' && !passesByItself(accepted))
    return refused(
      'MachineNotAccepted',
      `ProtectedVM ${request.name} is not accepted: ${accepted.message} Enrol again once it is.`,
    );
  return accepted?.status === 'True' && machine.status?.machineId !== undefined
    ? undefined
    : notReady(request.name, accepted?.message);
}

/** Nobody has to correct anything: the agent asks again by itself. */
function notReady(name: string, why: string | undefined): Refusal {
  return refused(
    'NotReady',
    `ProtectedVM ${name} is not accepted yet${why === undefined ? '.' : `: ${why}`}`,
  );
}

function pendingOf(
  vault: ControlledVault,
  kind: EnrolmentRequest['kind'],
): readonly PendingEnrolment[] {
  return vault.observation.pendingEnrolments.filter(({ request }) => request.kind === kind);
}

export function tellOutcomes(
  { events }: Pick<Environment, 'events'>,
  server: ProcessServer,
  outcomes: readonly EnrolmentOutcome[],
): void {
  for (const outcome of outcomes) events.record(server, eventOf(outcome));
}

function eventOf(outcome: EnrolmentOutcome): Happening {
  return outcome.refusal === undefined
    ? {
        type: 'Normal',
        reason: Reason.CertificateIssued,
        message: `${outcome.what} was given a certificate.`,
      }
    : {
        type: 'Warning',
        reason: Reason.EnrolmentRefused,
        message: `${outcome.what} was refused (${outcome.refusal.code}): ${outcome.refusal.message}`,
      };
}
