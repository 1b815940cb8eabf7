/**
 * A machine's sessions, one at a time: the newest agent wins, once what the one before sent is in the journal. Who can't be served now
 * is told why, and when to ask again.
 */
import { errorCode } from '../../platform/errors.ts';
import type { Clock, Logger } from '../../platform/ports.ts';
import type { MachineJournal } from '../journal/machineJournal.ts';
import type { Connection } from '../wire/connection.ts';
import {
  FrameType,
  type Message,
  PROTOCOL_VERSION,
  PROTOCOL_VERSION_MIN,
  RefusalCode,
} from '../wire/messages.ts';
import type { AssignedJournal } from './assignedJournal.ts';
import type { CreditPool } from './creditPool.ts';
import type { ErrorBook } from './errorBook.ts';
import { heartbeatsUntil } from './heartbeats.ts';
import { MachineSession, type SessionEnd, type SessionHost, superseded } from './machineSession.ts';
import { fencedRefusal, isProtocolError, type Refusal, refusal } from './refusals.ts';

export type Hello = Message<typeof FrameType.Hello>;

/** Errors of sessions, shown until the next barrier is taken. */
export const SESSION_ERRORS: readonly string[] = [
  RefusalCode.ProtocolBroken,
  RefusalCode.DataInvalid,
  RefusalCode.JournalFailed,
  RefusalCode.CertificateOfAnotherMachine,
  RefusalCode.VersionUnsupported,
];

export interface MachineSessionsDeps {
  clock: Clock;
  logger: Logger;
  errors: ErrorBook;
  journal: AssignedJournal;
  cacheId: string;
  credit: CreditPool;
}

/** The machine that the sessions belong to. */
export interface SessionOwner extends SessionHost {
  /** An agent is about to be served. */
  greeted(hello: Hello): void;
  /** Before Welcome: the journal is made to demand a resync if what the agent says calls for one. */
  demandResync(journal: MachineJournal, hello: Hello): Promise<void>;
  /** The next session may begin once it resolves. Never rejects. */
  sessionEnded(): Promise<void>;
}

export class MachineSessions {
  readonly #deps: MachineSessionsDeps;
  readonly #owner: SessionOwner;
  #session: MachineSession | undefined;
  #newestConnection = 0;
  #receivedBytes = 0;
  #closed = false;

  constructor(deps: MachineSessionsDeps, owner: SessionOwner) {
    this.#deps = deps;
    this.#owner = owner;
  }

  get connected(): boolean {
    return this.#session !== undefined;
  }

  /** Bytes of Data from agents since this process began. */
  get receivedBytes(): number {
    return this.#receivedBytes + (this.#session?.receivedBytes ?? 0);
  }

  /** The assignment, or who would take over, changed. */
  configurationChanged(): void {
    this.#session?.configurationChanged();
  }

  /** Ends the session of now, if there is one. */
  end(reason: Refusal): void {
    this.#session?.end(reason);
  }

  /** Nobody is served from now on; resolves when the session of now is over. */
  async close(): Promise<void> {
    this.#closed = true;
    this.end(closing());
    await this.#session?.finished;
  }

  /** Serves an agent that proved to be this machine, to the end of its connection. Never rejects. */
  async serve(connection: Connection, hello: Hello): Promise<void> {
    this.#newestConnection += 1;
    const ticket = this.#newestConnection;
    const protocol = Math.min(hello.protocol.max, PROTOCOL_VERSION);
    if (protocol < Math.max(hello.protocol.min, PROTOCOL_VERSION_MIN)) {
      await this.#refuseVersion(connection, hello);
      return;
    }
    // The newest wins, but not before what the older one sent is in the journal: Welcome tells positions that are final.
    while (this.#session !== undefined && ticket === this.#newestConnection) {
      this.#session.end(superseded());
      await heartbeatsUntil(this.#session.finished, { connection, clock: this.#deps.clock });
      if (connection.ended) return;
    }
    const unready = ticket === this.#newestConnection ? this.#unready() : superseded();
    const journal = this.#deps.journal.current;
    if (unready !== undefined || journal === undefined) {
      await this.#refuse(connection, unready ?? superseded());
      return;
    }
    await this.#run({ connection, hello, protocol, journal });
  }

  async #run(accepted: {
    connection: Connection;
    hello: Hello;
    protocol: number;
    journal: MachineJournal;
  }): Promise<void> {
    const { connection, hello, protocol, journal } = accepted;
    this.#owner.greeted(hello);
    const session = new MachineSession({
      connection,
      journal,
      host: this.#owner,
      clock: this.#deps.clock,
      logger: this.#deps.logger,
      protocol,
      cacheId: this.#deps.cacheId,
      credit: this.#deps.credit.open(),
    });
    this.#session = session;
    this.#deps.logger.info(
      { address: connection.peer.address, tracking: hello.tracking },
      'The agent is connected',
    );
    this.#judgeEnd(await session.run(() => this.#owner.demandResync(journal, hello)));
    await this.#owner.sessionEnded();
    this.#receivedBytes += session.receivedBytes;
    this.#session = undefined;
  }

  #judgeEnd(end: SessionEnd): void {
    const { errors, logger } = this.#deps;
    if (end.by === 'Agent') {
      logger.info({}, 'The agent has disconnected');
    } else if (end.by === 'Us') {
      const { code, message } = end.refusal;
      logger.info({ code }, `The agent was sent away: ${message}`);
      if (SESSION_ERRORS.includes(code)) errors.set(code, message);
    } else {
      const { error } = end;
      logger.warn({ code: errorCode(error), error }, 'The connection with the agent failed');
      if (isProtocolError(error))
        errors.set(RefusalCode.ProtocolBroken, `${error.code}: ${error.message}`);
    }
  }

  #unready(): Refusal | undefined {
    const { errors, journal } = this.#deps;
    if (journal.fenced !== undefined) return fencedRefusal(journal.fenced);
    if (this.#closed) return closing();
    if (journal.current !== undefined) return undefined;
    const [problem] = errors.list();
    const why = problem === undefined ? '' : ` (${problem.code}: ${problem.message})`;
    return refusal(RefusalCode.NotReady, `The machine's journal is not open yet${why}.`, 'soon');
  }

  async #refuseVersion(connection: Connection, hello: Hello): Promise<void> {
    const { min, max } = hello.protocol;
    const text = `The agent speaks protocol versions ${min} to ${max}, this process server ${PROTOCOL_VERSION_MIN} to ${PROTOCOL_VERSION}. Upgrade the older one.`;
    this.#deps.errors.set(RefusalCode.VersionUnsupported, text);
    await this.#refuse(connection, refusal(RefusalCode.VersionUnsupported, text, 'muchLater'));
  }

  async #refuse(connection: Connection, reason: Refusal): Promise<void> {
    const { address } = connection.peer;
    this.#deps.logger.info(
      { code: reason.code, address },
      `An agent was refused: ${reason.message}`,
    );
    await connection.closeWith(FrameType.Refused, reason);
  }
}

function closing(): Refusal {
  return refusal(
    RefusalCode.ShuttingDown,
    'The process server stops serving this machine.',
    'soon',
  );
}
