/**
 * Brings a machine's request for a certificate to the operator, through the vault, and the answer back. The process server decides
 * nothing here: it does not know the passphrase, and its answer is proven to the agent by the operator's MAC.
 */
import { createHash } from 'node:crypto';
import { errorCode, errorMessage } from '../../platform/errors.ts';
import type { Clock, Logger, ObjectStore, Random } from '../../platform/ports.ts';
import { certificateRequestDer } from '../../vault/authority.ts';
import { decodeDocument, encodeDocument } from '../../vault/documents/codec.ts';
import {
  type EnrolmentRequest,
  enrolmentAnswerSchema,
  enrolmentRequestSchema,
} from '../../vault/documents/enrolment.ts';
import { objectName } from '../../vault/documents/fields.ts';
import { ENROLMENT_NONCE_SIZE } from '../../vault/enrolmentProof.ts';
import { vaultLayout } from '../../vault/layout.ts';
import type { Connection } from '../wire/connection.ts';
import { FrameType, type Message } from '../wire/messages.ts';
import { RateLimit } from './rateLimit.ts';

const NONCE_LIFE_MS = 120_000;
const ANSWER_POLL_MS = 1_000;
const PENDING_MS = 5_000;
const PATIENCE_MS = 600_000;
/** Requests that wait for the operator at once. */
const PENDING_MAX = 256;
/** Machines behind one load balancer share an address, so an address may have a roomful of them. */
const PER_ADDRESS = { burst: 40, perMinute: 20 };
const OVERALL = { burst: 120, perMinute: 60 };

export interface EnrolmentRelayDeps {
  store: ObjectStore;
  clock: Clock;
  random: Random;
  logger: Logger;
}

type Answer = Message<typeof FrameType.EnrolAnswer>;

export class EnrolmentRelay {
  readonly #deps: EnrolmentRelayDeps;
  readonly #name: string;
  readonly #perAddress: RateLimit;
  readonly #overall: RateLimit;
  #pending = 0;

  /** `name`: this process server, as the operator knows it. */
  constructor(deps: EnrolmentRelayDeps, options: { name: string }) {
    this.#deps = deps;
    this.#name = options.name;
    this.#perAddress = new RateLimit(deps, PER_ADDRESS);
    this.#overall = new RateLimit(deps, OVERALL);
  }

  /** Serves a connection whose first message was EnrolBegin, to its end. Throws what ends a connection (WireError, ChannelError). */
  async serve(connection: Connection, begin: Message<typeof FrameType.EnrolBegin>): Promise<void> {
    const refusal = this.#refusal(connection, begin.name);
    if (refusal !== undefined) {
      await this.#answer(connection, begin.name, refusal);
      return;
    }
    this.#pending += 1;
    try {
      const answer = await this.#relay(connection, begin.name);
      if (answer !== undefined) await this.#answer(connection, begin.name, answer);
    } finally {
      this.#pending -= 1;
    }
  }

  #refusal(connection: Connection, name: string): Answer | undefined {
    if (!objectName.safeParse(name).success)
      return refused(
        'NameInvalid',
        `${JSON.stringify(name)} can't be a machine's name: lower-case letters, digits, - and . only, as in Kubernetes.`,
      );
    // The overall limit is asked second, so that one address can't use it up for all.
    if (!this.#perAddress.take(connection.peer.address) || !this.#overall.take('all'))
      return refused(
        'EnrolmentRateLimited',
        'Too many enrolments were asked for in the last minute. Try again in a minute.',
      );
    if (this.#pending >= PENDING_MAX)
      return refused(
        'EnrolmentRateLimited',
        `${PENDING_MAX} enrolments wait for the operator already: is it running?`,
      );
    return undefined;
  }

  async #relay(connection: Connection, name: string): Promise<Answer | undefined> {
    const nonce = Buffer.from(this.#deps.random.bytes(ENROLMENT_NONCE_SIZE)).toString('hex');
    const madeMs = this.#deps.clock.monotonic();
    await connection.send(FrameType.EnrolNonce, { nonce });
    const received = await connection.receive();
    if (received === undefined) return undefined;
    if (received.type !== FrameType.EnrolRequest)
      return refused('EnrolmentOutOfOrder', 'EnrolNonce is answered by EnrolRequest.');
    const request = received.message;
    // The nonce lives on this connection alone and is used up by this request, whatever becomes of it.
    if (this.#deps.clock.monotonic() - madeMs > NONCE_LIFE_MS)
      return refused('NonceExpired', 'The nonce has expired. Ask for another one.');
    if (request.name !== name)
      return refused('NameInvalid', 'EnrolRequest is for another name than EnrolBegin.');
    try {
      return await this.#submit(connection, { request, nonce });
    } catch (error) {
      if (connection.ended) throw error;
      this.#deps.logger.warn(
        { code: errorCode(error), machine: name, error },
        'An enrolment could not be brought to the operator',
      );
      return refused(
        'EnrolmentFailed',
        `The request did not get to the operator (${errorCode(error)}: ${errorMessage(error)}). Try again later.`,
      );
    }
  }

  async #submit(
    connection: Connection,
    asked: { request: Message<typeof FrameType.EnrolRequest>; nonce: string },
  ): Promise<Answer> {
    const { request, nonce } = asked;
    const id = createHash('sha256').update(certificateRequestDer(request.csrPem)).digest('hex');
    const document: EnrolmentRequest = {
      kind: 'agent',
      name: request.name,
      requestedAt: this.#deps.clock.now(),
      csrPem: request.csrPem,
      proof: { nonce, mac: request.mac },
      via: this.#name,
      disks: request.disks,
    };
    const put = await this.#deps.store.putIfAbsent(
      vaultLayout.enrolment(id),
      encodeDocument(enrolmentRequestSchema, document),
    );
    const firstNonce = put.outcome === 'created' ? nonce : await this.#nonceOf(id, nonce);
    this.#deps.logger.info(
      { machine: request.name, enrolment: id, address: connection.peer.address },
      'A machine asks to be enrolled',
    );
    return await this.#awaitAnswer(connection, { id, nonce: firstNonce });
  }

  /** The nonce of the request that is in the vault: the answer's MAC will be made with its key. */
  async #nonceOf(id: string, ours: string): Promise<string> {
    const key = vaultLayout.enrolment(id);
    const stored = await this.#deps.store.get(key);
    if (stored === undefined) return ours;
    return decodeDocument(enrolmentRequestSchema, key, stored.body).proof?.nonce ?? ours;
  }

  async #awaitAnswer(
    connection: Connection,
    asked: { id: string; nonce: string },
  ): Promise<Answer> {
    const key = vaultLayout.enrolmentAnswer(asked.id);
    for (let waited = 0; waited < PATIENCE_MS; waited += ANSWER_POLL_MS) {
      const stored = await this.#deps.store.get(key);
      if (stored !== undefined) return this.#translate(key, stored.body, asked.nonce);
      if (waited % PENDING_MS === 0)
        await connection.send(FrameType.EnrolAnswer, { outcome: 'pending' });
      await this.#deps.clock.sleep(ANSWER_POLL_MS);
    }
    return refused(
      'EnrolmentUnanswered',
      'The operator did not answer within 10 minutes: is it running? The request stays; ask again with the same key to go on waiting.',
    );
  }

  #translate(key: string, body: Uint8Array, nonce: string): Answer {
    const answer = decodeDocument(enrolmentAnswerSchema, key, body);
    if (answer.outcome === 'refused') return answer;
    if (answer.machineId === undefined)
      return refused('EnrolmentFailed', 'The operator answered with a process server certificate.');
    return { ...answer, machineId: answer.machineId, nonce };
  }

  async #answer(connection: Connection, name: string, answer: Answer): Promise<void> {
    if (answer.outcome === 'refused')
      this.#deps.logger.warn(
        { code: answer.code, machine: name, address: connection.peer.address },
        `Enrolment refused: ${answer.message}`,
      );
    await connection.send(FrameType.EnrolAnswer, answer);
    await connection.close();
  }
}

function refused(code: string, message: string): Answer {
  return { outcome: 'refused', code, message };
}
