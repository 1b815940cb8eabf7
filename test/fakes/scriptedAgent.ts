/** The agent's side of the wire, driven step by step by a test: no capture, no disks. */
import { createHash } from 'node:crypto';
import {
  encodeControlRecord,
  encodeDataHeader,
  RecordKind,
} from '../../dataplane/journal/record.ts';
import { Connection, framesFrom } from '../../dataplane/wire/connection.ts';
import type { Received } from '../../dataplane/wire/encoder.ts';
import { type ControlType, FrameType, type Message } from '../../dataplane/wire/messages.ts';
import type { Channel, Clock, Random } from '../../platform/ports.ts';
import { createCertificateRequest } from '../../vault/authority.ts';
import { agentRequestMac, answerMac, passphraseKey, sameMac } from '../../vault/enrolmentProof.ts';

export interface EnrolledAgent {
  machineId: string;
  certificatePem: string;
  caCertificatePem: string;
  privateKeyPem: string;
}

/** Enrols over a fresh channel. Rejects with the refusal's code as message. */
export async function enrolAgent(options: {
  channel: Channel;
  clock: Clock;
  random: Random;
  name: string;
  passphrase: string;
}): Promise<EnrolledAgent> {
  const { channel, clock, random, name, passphrase } = options;
  const connection = new Connection({ channel, clock, accepts: framesFrom.processServer });
  try {
    await connection.send(FrameType.EnrolBegin, { name });
    const begun = await connection.receive();
    if (begun?.type === FrameType.EnrolAnswer && begun.message.outcome === 'refused')
      throw new Error(begun.message.code);
    if (begun?.type !== FrameType.EnrolNonce) throw new Error('no nonce');
    const key = passphraseKey({ passphrase, nonce: begun.message.nonce });
    const { csrPem, csrDer, privateKeyPem } = await createCertificateRequest(
      { random },
      { commonName: name },
    );
    const mac = agentRequestMac({ key, csrDer, name });
    await connection.send(FrameType.EnrolRequest, { name, csrPem, mac, disks: [] });
    for (;;) {
      const received = await connection.receive();
      if (received?.type !== FrameType.EnrolAnswer) throw new Error('no answer');
      const answer = received.message;
      if (answer.outcome === 'pending') continue;
      if (answer.outcome === 'refused') throw new Error(answer.code);
      const { certificatePem, caCertificatePem, machineId } = answer;
      if (!sameMac(answerMac({ key, certificatePem, caCertificatePem, machineId }), answer.mac))
        throw new Error('answer forged');
      return { machineId, certificatePem, caCertificatePem, privateKeyPem };
    }
  } finally {
    await connection.close();
  }
}

/** What an agent keeps between connections. */
export interface AgentMemory {
  machineId: string;
  capturedLsn: bigint;
  acknowledgedBarrierLsn: bigint;
  cacheId: string | undefined;
  tracking: Message<typeof FrameType.Hello>['tracking'];
}

export function freshMemory(machineId: string): AgentMemory {
  return {
    machineId,
    capturedLsn: 0n,
    acknowledgedBarrierLsn: 0n,
    cacheId: undefined,
    tracking: { state: 'Lost', reason: 'Initial', detail: 'new' },
  };
}

export class ScriptedAgent {
  readonly connection: Connection;
  readonly memory: AgentMemory;
  readonly #received: Received[] = [];
  #credit = 0;
  #window = 0;
  #nextLsn = 0n;
  uploadedLsn = 0n;
  uploadedBarrierLsn = 0n;
  sizeBytes = 1 << 20;

  constructor(options: { channel: Channel; clock: Clock; memory: AgentMemory }) {
    this.memory = options.memory;
    this.connection = new Connection({ ...options, accepts: framesFrom.processServer });
  }

  /** Says Hello and waits for the answer. */
  async hello(
    changes: Partial<Message<typeof FrameType.Hello>> = {},
  ): Promise<Received | undefined> {
    const { machineId, capturedLsn, acknowledgedBarrierLsn, cacheId, tracking } = this.memory;
    await this.connection.send(FrameType.Hello, {
      protocol: { min: 1, max: 1 },
      machineId,
      agentVersion: '0.0.0-test',
      hostname: 'db1',
      kernel: 'test',
      bootId: 'boot',
      capturedLsn,
      acknowledgedBarrierLsn,
      cacheId,
      tracking,
      ...changes,
    });
    for (;;) {
      const answer = await this.connection.receive();
      if (answer?.type === FrameType.Heartbeat) continue;
      if (answer?.type !== FrameType.Welcome) return answer;
      this.memory.cacheId = answer.message.cacheId;
      this.#window = answer.message.creditBytes;
      this.#credit = this.#window;
      this.#nextLsn = answer.message.journaledLsn + 1n;
      this.uploadedLsn = answer.message.uploadedLsn;
      return answer;
    }
  }

  /** Hello, and the disk's size. Returns Welcome; throws when there is none. */
  async begin(): Promise<Message<typeof FrameType.Welcome>> {
    const answer = await this.hello();
    if (answer?.type !== FrameType.Welcome)
      throw new Error(`no Welcome but ${JSON.stringify(answer)}`);
    await this.reportStatus();
    return answer.message;
  }

  async reportStatus(changes: Partial<Message<typeof FrameType.AgentStatus>> = {}): Promise<void> {
    await this.connection.send(FrameType.AgentStatus, {
      capturedLsn: this.#nextLsn - 1n,
      disks: [{ index: 0, device: '/dev/sda', sizeBytes: this.sizeBytes }],
      dirtyBytes: 0,
      errors: [],
      ...changes,
    });
  }

  /** A resync of the whole disk: every leaf, filled with `fill`. */
  async resync(fill: number, reason = 'Initial'): Promise<void> {
    await this.sendRecords([encodeControlRecord({ kind: RecordKind.ResyncBegin, reason })]);
    for (let leaf = 0; leaf < this.sizeBytes / 65536; leaf += 1)
      await this.sendRecords([wholeLeaf(leaf, fill)]);
    await this.sendRecords([encodeControlRecord({ kind: RecordKind.ResyncEnd })]);
    this.memory.tracking = { state: 'Continued' };
  }

  /** Sends records as one batch once there is credit; returns the LSN of the last. */
  async sendRecords(records: readonly Uint8Array[]): Promise<bigint> {
    const cost = 12 + records.reduce((sum, record) => sum + record.length, 0);
    while (this.#credit < cost) this.#received.push(await this.#next());
    this.#credit -= cost;
    const firstLsn = this.#nextLsn;
    this.#nextLsn += BigInt(records.length);
    this.memory.capturedLsn = this.#nextLsn - 1n;
    await this.connection.sendData({ firstLsn, count: records.length, records });
    return this.#nextLsn - 1n;
  }

  /** Takes part in the next barrier that is asked for; returns its LSN. */
  async barrier(
    options: { freezeMs?: number; before?: () => Promise<void> } = {},
  ): Promise<{ lsn: bigint; timeMs: number; prepare: Message<typeof FrameType.BarrierPrepare> }> {
    const { message: prepare } = await this.waitFor(FrameType.BarrierPrepare);
    await this.connection.send(FrameType.BarrierReady, { id: prepare.id });
    const { message: freeze } = await this.waitFor(FrameType.BarrierFreeze);
    await options.before?.();
    const lsn = this.#nextLsn;
    this.#nextLsn += 1n;
    this.memory.capturedLsn = lsn;
    await this.connection.send(FrameType.Barrier, {
      id: prepare.id,
      lsn,
      disks: [{ index: 0, sizeBytes: this.sizeBytes }],
      freezeMs: options.freezeMs ?? 5,
    });
    const { message: acknowledged } = await this.waitFor(FrameType.BarrierAcknowledged);
    this.memory.acknowledgedBarrierLsn = acknowledged.lsn;
    return { lsn, timeMs: freeze.timeMs, prepare };
  }

  /** Waits until everything that was sent is durable in the cache: all credit is back. */
  async settled(): Promise<void> {
    while (this.#credit < this.#window) this.#received.push(await this.#next());
  }

  async waitForUploaded(lsn: bigint): Promise<void> {
    while (this.uploadedBarrierLsn < lsn) this.#received.push(await this.#next());
  }

  /** The next message of this type; others that come first are kept for later waits. */
  async waitFor<T extends ControlType>(type: T): Promise<{ type: T; message: Message<T> }> {
    for (;;) {
      const index = this.#received.findIndex((received) => received.type === type);
      const [found] = index === -1 ? [] : this.#received.splice(index, 1);
      if (found !== undefined) return found as { type: T; message: Message<T> };
      this.#received.push(await this.#next());
    }
  }

  async #next(): Promise<Received> {
    for (;;) {
      const received = await this.connection.receive();
      if (received === undefined) throw new Error('the process server ended the conversation');
      if (received.type === FrameType.Heartbeat) {
        // As a real one does every few seconds; here it answers.
        await this.reportStatus();
        continue;
      }
      if (received.type === FrameType.Credit) this.#credit += received.message.bytes;
      if (received.type === FrameType.Uploaded) {
        this.uploadedLsn = received.message.uploadedLsn;
        this.uploadedBarrierLsn = received.message.barrierLsn;
      }
      return received;
    }
  }
}

/** A Data record of a whole leaf, every byte `fill`. */
export function wholeLeaf(leaf: number, fill: number): Uint8Array {
  const content = Buffer.alloc(65536, fill);
  const isZero = fill === 0;
  const record = new Uint8Array(48 + (isZero ? 0 : content.length));
  encodeDataHeader(record, 0, {
    disk: 0,
    leaf,
    blockMask: 0xffff,
    zeroMask: isZero ? 0xffff : 0,
    leafHash: createHash('sha256').update(content).digest(),
  });
  if (!isZero) record.set(content, 48);
  return record;
}
