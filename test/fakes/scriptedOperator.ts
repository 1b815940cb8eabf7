/**
 * What the operator does in a vault for process servers and agents, without Kubernetes: makes the vault, answers enrolments, signs
 * assignments. Works on any ObjectStore.
 */
import type { Clock, ObjectStore, Random } from '../../platform/ports.ts';
import { type CertificateAuthority, certificateRequestDer } from '../../vault/authority.ts';
import {
  type Assignment,
  type AssignmentsDocument,
  assignmentsDocumentSchema,
} from '../../vault/documents/assignments.ts';
import { decodeDocument, encodeDocument } from '../../vault/documents/codec.ts';
import {
  type EnrolmentAnswer,
  type EnrolmentRequest,
  enrolmentAnswerSchema,
  enrolmentRequestSchema,
} from '../../vault/documents/enrolment.ts';
import {
  type ProcessServerStatus,
  processServerStatusSchema,
} from '../../vault/documents/processServerStatus.ts';
import { signedSchema } from '../../vault/documents/signed.ts';
import type { VaultDocument } from '../../vault/documents/vault.ts';
import {
  agentRequestMac,
  answerMac,
  passphraseKey,
  sameMac,
  tokenKey,
  tokenRequestMac,
} from '../../vault/enrolmentProof.ts';
import {
  type BoxKey,
  boxContext,
  decodePublicKey,
  generateBoxKey,
  sealKeyForAll,
} from '../../vault/keys.ts';
import { vaultLayout } from '../../vault/layout.ts';
import { generateRecoveryKey } from '../../vault/recoveryKey.ts';
import { generateSigningKey, type SigningKey, signPayload } from '../../vault/signing.ts';
import { createVault, openAuthority } from '../../vault/vault.ts';

export interface OperatorDeps {
  store: ObjectStore;
  clock: Clock;
  random: Random;
}

export class ScriptedOperator {
  readonly vault: VaultDocument;
  readonly signingKey: SigningKey;
  readonly authority: CertificateAuthority;
  readonly token = 'one-time-token-0123456789';
  passphrase = 'correct horse battery staple';
  /** Machine name → id, of those that may enrol. */
  readonly machineIds = new Map<string, string>();
  readonly #deps: OperatorDeps;
  readonly #processServerKeys = new Map<string, Uint8Array>();
  readonly #dataKeys = new Map<string, Uint8Array>();
  readonly #generations = new Map<string, number>();

  private constructor(
    deps: OperatorDeps,
    made: { vault: VaultDocument; signingKey: SigningKey; authority: CertificateAuthority },
  ) {
    this.#deps = deps;
    this.vault = made.vault;
    this.signingKey = made.signingKey;
    this.authority = made.authority;
  }

  static async create(deps: OperatorDeps): Promise<ScriptedOperator> {
    const vaultKey: BoxKey = generateBoxKey(deps.random);
    const signingKey = generateSigningKey(deps.random);
    const { vault } = await createVault(deps, {
      installationId: 'ab'.repeat(16),
      vaultKey,
      controllerKey: signingKey,
      recoveryRecipients: [generateRecoveryKey(deps.random).publicString],
    });
    const authority = await openAuthority(deps, { vault: vault.document, key: vaultKey });
    return new ScriptedOperator(deps, { vault: vault.document, signingKey, authority });
  }

  /** Registers a machine that may enrol under this name. */
  addMachine(name: string): string {
    const machineId = Buffer.from(this.#deps.random.bytes(16)).toString('hex');
    this.machineIds.set(name, machineId);
    return machineId;
  }

  dataKey(machineId: string): Uint8Array {
    const present = this.#dataKeys.get(machineId);
    if (present !== undefined) return present;
    const made = this.#deps.random.bytes(32);
    this.#dataKeys.set(machineId, made);
    return made;
  }

  /** Answers every request that has no answer yet. */
  async answerEnrolments(): Promise<void> {
    const { store } = this.#deps;
    for await (const { key } of store.list(vaultLayout.enrolmentsPrefix)) {
      if (key.endsWith('.answer.json')) continue;
      const id = key.slice(vaultLayout.enrolmentsPrefix.length, -'.json'.length);
      if ((await store.head(vaultLayout.enrolmentAnswer(id))) !== undefined) continue;
      const stored = await store.get(key);
      if (stored === undefined) continue;
      const answer = await this.#answer(decodeDocument(enrolmentRequestSchema, key, stored.body));
      await store.putIfAbsent(
        vaultLayout.enrolmentAnswer(id),
        encodeDocument(enrolmentAnswerSchema, answer),
      );
    }
  }

  /** Signs and writes what a process server must do now. It must have enrolled. */
  async assign(
    processServer: string,
    machines: readonly AssignedMachine[],
    changes: Partial<AssignmentsDocument> & { signer?: SigningKey } = {},
  ): Promise<void> {
    const { signer, ...fields } = changes;
    const generation = fields.generation ?? (this.#generations.get(processServer) ?? 0) + 1;
    this.#generations.set(processServer, generation);
    const document: AssignmentsDocument = {
      vaultId: this.vault.vaultId,
      processServer,
      controllerEpoch: 1,
      caCertificatePem: this.vault.ca.certificatePem,
      machines: machines.map((machine) => this.#assignment(processServer, machine)),
      redirects: {},
      ...fields,
      generation,
    };
    const payload = new TextDecoder().decode(encodeDocument(assignmentsDocumentSchema, document));
    const signed = signPayload(signer ?? this.signingKey, payload);
    await this.#deps.store.put(
      vaultLayout.assignments(processServer),
      encodeDocument(signedSchema, signed),
    );
  }

  async status(processServer: string): Promise<ProcessServerStatus | undefined> {
    const key = vaultLayout.processServerStatus(processServer);
    const stored = await this.#deps.store.get(key);
    return stored && decodeDocument(processServerStatusSchema, key, stored.body);
  }

  /** For a process server made without enrolment: a unit test's. */
  trustKey(processServer: string, publicKey: Uint8Array): void {
    this.#processServerKeys.set(processServer, publicKey);
  }

  #assignment(processServer: string, machine: AssignedMachine): Assignment {
    const publicKey = this.#processServerKeys.get(processServer);
    if (publicKey === undefined) throw new Error(`${processServer} has not enrolled`);
    const machineId = machine.machineId;
    const dataKey = this.dataKey(machineId);
    const sealed = sealKeyForAll({
      random: this.#deps.random,
      recipients: [{ kind: 'processserver', publicKey }],
      secret: dataKey,
      context: boxContext.dataKey(this.vault.vaultId, machineId),
    });
    return {
      name: machine.name ?? 'db1',
      namespace: 'default',
      writerEpoch: 1,
      disks: [{ index: 0, name: 'root', device: '/dev/sda', sizeBytes: 0 }],
      dataKey: sealed,
      paused: false,
      policy: { crashConsistentSeconds: 15, appConsistentSeconds: 0 },
      ...machine,
    };
  }

  async #answer(request: EnrolmentRequest): Promise<EnrolmentAnswer> {
    const csrDer = certificateRequestDer(request.csrPem);
    if (request.kind === 'processserver') return await this.#admitServer(request, csrDer);
    const { nonce, mac } = request.proof ?? { nonce: '', mac: '' };
    const key = passphraseKey({ passphrase: this.passphrase, nonce });
    if (!sameMac(agentRequestMac({ key, csrDer, name: request.name }), mac))
      return refusedAnswer('WrongPassphrase');
    const machineId = this.machineIds.get(request.name);
    if (machineId === undefined) return refusedAnswer('UnknownMachine');
    const certificatePem = await this.authority.issueMachine({ csrPem: request.csrPem, machineId });
    return this.#accepted({ key, certificatePem, machineId });
  }

  async #admitServer(request: EnrolmentRequest, csrDer: Uint8Array): Promise<EnrolmentAnswer> {
    const key = tokenKey(this.token);
    const { name, encryptionKey = '' } = request;
    const expected = tokenRequestMac({ key, csrDer, name, encryptionKey });
    if (!sameMac(expected, request.tokenMac ?? '')) return refusedAnswer('TokenWrong');
    this.#processServerKeys.set(name, decodePublicKey(encryptionKey));
    const certificatePem = await this.authority.issueProcessServer({
      csrPem: request.csrPem,
      name,
      hosts: ['127.0.0.1'],
    });
    return this.#accepted({ key, certificatePem });
  }

  #accepted(given: {
    key: Uint8Array;
    certificatePem: string;
    machineId?: string;
  }): EnrolmentAnswer {
    const { key, ...certificate } = given;
    const caCertificatePem = this.vault.ca.certificatePem;
    return {
      outcome: 'accepted',
      ...certificate,
      caCertificatePem,
      mac: answerMac({ key, caCertificatePem, ...certificate }),
    };
  }
}

export type AssignedMachine = Partial<Assignment> & { machineId: string };

function refusedAnswer(code: string): EnrolmentAnswer {
  return { outcome: 'refused', code, message: `refused: ${code}` };
}
