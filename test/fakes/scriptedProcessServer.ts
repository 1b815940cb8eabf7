/** A process server's side of one session, without journal or vault: takes whatever comes, and uploads when told. */
import { RecordKind } from '../../dataplane/journal/record.ts';
import { Connection, framesFrom } from '../../dataplane/wire/connection.ts';
import type { Ask, Received } from '../../dataplane/wire/encoder.ts';
import {
  AnswerCode,
  type Configuration,
  FrameType,
  type Message,
} from '../../dataplane/wire/messages.ts';
import type { Channel, Clock } from '../../platform/ports.ts';
import type { LeafKnowledge } from './leafKnowledge.ts';

export type AgentStatus = Message<typeof FrameType.AgentStatus>;

/** What outlives a session. */
export interface ServerMemory {
  journaledLsn: bigint;
  uploadedBarrierLsn: bigint;
  resyncRequired: boolean;
  resync?: Message<typeof FrameType.Welcome>['resync'];
  cacheId?: string;
  writerEpoch?: number;
  /** Without it every leaf differs from what is known. */
  knowledge?: LeafKnowledge;
}

export class ScriptedProcessServer {
  readonly statuses: AgentStatus[] = [];
  readonly barriers: bigint[] = [];
  readonly voided: string[] = [];
  readonly readies: number[] = [];
  /** LSNs of ResyncBegin records. */
  readonly resyncs: bigint[] = [];
  readonly questions: Ask[] = [];
  answers = true;
  /** Whether it lets a machine freeze that is ready to. */
  letsFreeze = true;
  readonly memory: ServerMemory;
  readonly #connection: Connection;
  #nextId = 1;

  constructor(options: { channel: Channel; clock: Clock; memory: ServerMemory }) {
    this.memory = options.memory;
    this.#connection = new Connection({ ...options, accepts: framesFrom.agent });
  }

  get asks(): number {
    return this.questions.length;
  }

  get final(): AgentStatus['final'] {
    return this.statuses.at(-1)?.final;
  }

  /** Listens to the end of the connection. */
  async listen(): Promise<void> {
    for (;;) {
      const received = await this.#connection.receive().catch(() => undefined);
      if (received === undefined) return;
      await this.#handle(received).catch(() => undefined);
    }
  }

  welcome(configuration: Configuration): Message<typeof FrameType.Welcome> {
    const { journaledLsn, uploadedBarrierLsn, resyncRequired } = this.memory;
    return {
      protocol: 1,
      writerEpoch: this.memory.writerEpoch ?? 1,
      cacheId: this.memory.cacheId ?? 'ca'.repeat(16),
      journaledLsn,
      uploadedLsn: uploadedBarrierLsn,
      lastBarrierLsn: uploadedBarrierLsn,
      resync:
        this.memory.resync ??
        (resyncRequired ? { required: true, reason: 'Initial' } : { required: false }),
      creditBytes: 4 << 20,
      configuration,
    };
  }

  async configure(configuration: Configuration): Promise<void> {
    await this.#connection.send(FrameType.Configure, configuration);
  }

  async prepare(final?: Configuration['final']): Promise<void> {
    const id = this.#nextId++;
    await this.#connection.send(FrameType.BarrierPrepare, {
      id,
      consistency: 'Crash',
      ...(final === undefined ? {} : { final }),
    });
  }

  async upload(): Promise<void> {
    const barrierLsn = this.barriers.at(-1) ?? this.memory.uploadedBarrierLsn;
    this.memory.uploadedBarrierLsn = barrierLsn;
    this.memory.knowledge?.uploaded();
    await this.#connection.send(FrameType.Uploaded, { uploadedLsn: barrierLsn, barrierLsn });
  }

  async close(): Promise<void> {
    await this.#connection.close();
  }

  async #handle(received: Received): Promise<void> {
    switch (received.type) {
      case FrameType.Data: {
        const { firstLsn, count, records } = received.data;
        this.memory.journaledLsn = firstLsn + BigInt(count) - 1n;
        this.memory.resyncRequired = false;
        this.memory.knowledge?.take(records);
        if (records[0] === RecordKind.ResyncBegin) this.resyncs.push(firstLsn);
        await this.#connection.send(FrameType.Credit, { bytes: 12 + records.length });
        return;
      }
      case FrameType.Ask: {
        const { ask } = received;
        this.questions.push(ask);
        if (!this.answers) return;
        const codes =
          (await this.memory.knowledge?.ask(ask)) ??
          new Uint8Array(ask.hashes.length / 32).fill(AnswerCode.Differs);
        await this.#connection.sendAnswer({ askId: ask.askId, codes });
        return;
      }
      case FrameType.AgentStatus:
        this.statuses.push(received.message);
        await this.#connection.send(FrameType.Heartbeat, { timeMs: 1 });
        return;
      case FrameType.BarrierReady:
        this.readies.push(received.message.id);
        if (!this.letsFreeze) return;
        await this.#connection.send(FrameType.BarrierFreeze, {
          id: received.message.id,
          timeMs: 1,
        });
        return;
      case FrameType.Barrier: {
        const { id, lsn } = received.message;
        this.barriers.push(lsn);
        this.memory.journaledLsn = lsn;
        this.memory.knowledge?.barrier();
        await this.#connection.send(FrameType.BarrierAcknowledged, { id, lsn });
        return;
      }
      case FrameType.BarrierVoided:
        this.voided.push(received.message.code);
        return;
      default:
    }
  }
}
