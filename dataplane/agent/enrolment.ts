/**
 * How an agent gets its certificate: it proves that it knows the passphrase (which never travels), and takes no answer that does not
 * prove the same.
 */
import { X509Certificate } from 'node:crypto';
import { FarshoreError } from '../../platform/errors.ts';
import type { Channel, Clock, Logger, Random, SourceMachine } from '../../platform/ports.ts';
import { certificateRequestDer, createCertificateRequest } from '../../vault/authority.ts';
import { agentRequestMac, answerMac, passphraseKey, sameMac } from '../../vault/enrolmentProof.ts';
import { machineOfIdentities } from '../../vault/identity.ts';
import { Connection, framesFrom } from '../wire/connection.ts';
import { FrameType, type Message } from '../wire/messages.ts';
import type { AgentIdentity, EnrolmentDraft, IdentityStore } from './identity.ts';

export interface EnrolmentDeps {
  /** A channel to a process server that nobody vouches for yet. */
  connect: () => Promise<Channel>;
  identities: IdentityStore;
  machine: SourceMachine;
  clock: Clock;
  random: Random;
  log: Logger;
}

/** The operator said no; asking again says the same. `refusal` is its code. Code EnrolmentRefused. */
export class EnrolmentRefusedError extends FarshoreError {
  readonly refusal: string;

  constructor(options: { name: string; refusal: string; message: string }) {
    super(
      'EnrolmentRefused',
      `This machine was not enrolled as ${options.name} (${options.refusal}): ${options.message}`,
    );
    this.refusal = options.refusal;
  }
}

/**
 * Enrols over one connection and stores the identity. Throws EnrolmentRefusedError, FarshoreError EnrolmentAnswerForged, or what
 * ends a connection: then it may be called again, and goes on with the same request.
 */
export async function enrol(
  deps: EnrolmentDeps,
  options: { name: string; passphrase: string },
): Promise<AgentIdentity> {
  const { name, passphrase } = options;
  const draft = await draftFor(deps, name);
  const connection = new Connection({
    channel: await deps.connect(),
    clock: deps.clock,
    accepts: framesFrom.processServer,
  });
  try {
    await connection.send(FrameType.EnrolBegin, { name });
    const { nonce } = await expectNonce(connection, name);
    const csrDer = certificateRequestDer(draft.csrPem);
    await connection.send(FrameType.EnrolRequest, {
      name,
      csrPem: draft.csrPem,
      mac: agentRequestMac({ key: passphraseKey({ passphrase, nonce }), csrDer, name }),
      disks: (await deps.machine.disks()).slice(0, 256),
    });
    const answer = await awaitAnswer(connection, deps.log);
    if (answer.outcome === 'refused') {
      await deps.identities.removeDraft();
      throw new EnrolmentRefusedError({ name, refusal: answer.code, message: answer.message });
    }
    const identity = verifiedIdentity(answer, { draft, passphrase });
    await deps.identities.saveIdentity(identity);
    deps.log.info({ machineId: identity.machineId, name }, 'This machine is enrolled');
    return identity;
  } finally {
    await connection.close();
  }
}

async function draftFor(deps: EnrolmentDeps, name: string): Promise<EnrolmentDraft> {
  const existing = await deps.identities.draft();
  if (existing?.name === name) return existing;
  const { privateKeyPem, csrPem } = await createCertificateRequest(deps, { commonName: name });
  const draft = { name, privateKeyPem, csrPem };
  await deps.identities.saveDraft(draft);
  return draft;
}

async function expectNonce(
  connection: Connection,
  name: string,
): Promise<Message<typeof FrameType.EnrolNonce>> {
  const received = await connection.receive();
  if (received?.type === FrameType.EnrolNonce) return received.message;
  if (received?.type === FrameType.EnrolAnswer && received.message.outcome === 'refused')
    throw new EnrolmentRefusedError({
      name,
      refusal: received.message.code,
      message: received.message.message,
    });
  throw unexpected(received?.type);
}

type FinalAnswer = Exclude<Message<typeof FrameType.EnrolAnswer>, { outcome: 'pending' }>;

async function awaitAnswer(connection: Connection, log: Logger): Promise<FinalAnswer> {
  let told = false;
  for (;;) {
    const received = await connection.receive();
    if (received?.type === FrameType.Heartbeat) continue;
    if (received?.type !== FrameType.EnrolAnswer) throw unexpected(received?.type);
    if (received.message.outcome !== 'pending') return received.message;
    if (!told) log.info({}, 'Waiting for the operator to answer the enrolment');
    told = true;
  }
}

function verifiedIdentity(
  answer: Extract<FinalAnswer, { outcome: 'accepted' }>,
  asked: { draft: EnrolmentDraft; passphrase: string },
): AgentIdentity {
  const { certificatePem, caCertificatePem, machineId, nonce } = answer;
  const key = passphraseKey({ passphrase: asked.passphrase, nonce });
  const expected = answerMac({ key, certificatePem, caCertificatePem, machineId });
  if (!sameMac(expected, answer.mac))
    throw new FarshoreError(
      'EnrolmentAnswerForged',
      'The answer to the enrolment does not come from an operator that knows the passphrase. Check the passphrase and the process server address; if both are right, somebody is in between.',
    );
  const certificate = new X509Certificate(certificatePem);
  const names = (certificate.subjectAltName ?? '')
    .split(', ')
    .filter((name) => name.startsWith('URI:'))
    .map((name) => name.slice(4));
  if (machineOfIdentities(names) !== machineId)
    throw new FarshoreError(
      'EnrolmentAnswerForged',
      'The certificate in the answer to the enrolment is for another machine than the answer says. Report it.',
    );
  const { name, privateKeyPem } = asked.draft;
  return { name, machineId, privateKeyPem, certificatePem, caCertificatePem };
}

function unexpected(type: number | undefined): FarshoreError {
  return new FarshoreError(
    'EnrolmentInterrupted',
    type === undefined
      ? 'The process server ended the connection before it answered the enrolment.'
      : `The process server answered the enrolment with a message of type ${type}.`,
  );
}
