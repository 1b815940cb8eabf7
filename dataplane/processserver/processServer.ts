/**
 * A process server: takes what agents send into its cache and from there into the vault, as the operator's assignments say. It needs
 * the vault alone, and goes on serving from its cache while that is away.
 */
import { ensureDirectory } from '../../platform/durableFile.ts';
import { errorCode } from '../../platform/errors.ts';
import type {
  Channel,
  ChannelListener,
  Clock,
  Disk,
  Logger,
  ObjectStore,
  Random,
} from '../../platform/ports.ts';
import { machineOfIdentities } from '../../vault/identity.ts';
import type { JournalCache } from '../journal/machineJournal.ts';
import { Connection, framesFrom } from '../wire/connection.ts';
import { FrameType, RefusalCode } from '../wire/messages.ts';
import { AssignedMachines } from './assignedMachines.ts';
import { ASSIGNMENTS_POLL_MS, Assignments } from './assignments.ts';
import { CreditPool } from './creditPool.ts';
import { EnrolmentRelay } from './enrolmentRelay.ts';
import { RECORDS_DIRECTORY } from './machineRecord.ts';
import type { Hello } from './machineSessions.ts';
import type { ServerFigures } from './metrics.ts';
import { protocolFarewell, type Refusal, refusal } from './refusals.ts';
import type { ServerIdentity } from './serverIdentity.ts';
import { StatusReport } from './status.ts';
import { UploadLimit } from './uploadLimit.ts';

const STATUS_MS = 5_000;
/** Connections without a certificate at once: each may hold an enrolment request in memory. */
const STRANGERS_MAX = 512;

export interface ProcessServerDeps {
  store: ObjectStore;
  /** Its own directory, beside the cache's. */
  disk: Disk;
  cache: JournalCache;
  clock: Clock;
  random: Random;
  logger: Logger;
  listen: (options: {
    port: number;
    cert: string;
    key: string;
    ca: string;
    onChannel: (channel: Channel) => void;
    onHandshakeFailed: (failure: { address: string; error: Error }) => void;
  }) => Promise<ChannelListener>;
  observeFreeze?: (milliseconds: number) => void;
}

export interface ProcessServerOptions {
  name: string;
  version: string;
  vaultId: string;
  /** The controller's public key that the bootstrap file pins. */
  pinnedKey: string;
  identity: ServerIdentity;
  port: number;
  endpoints: readonly string[];
}

export class ProcessServer {
  readonly #deps: ProcessServerDeps;
  readonly #options: ProcessServerOptions;
  readonly #assignments: Assignments;
  readonly #machines: AssignedMachines;
  readonly #relay: EnrolmentRelay;
  readonly #status: StatusReport;
  readonly #uploadLimit: UploadLimit;
  readonly #connections = new Set<Connection>();
  readonly #serving = new Set<Promise<void>>();
  #strangers = 0;
  #listener: ChannelListener | undefined;
  #caCertificatePem: string;

  private constructor(
    deps: ProcessServerDeps,
    options: ProcessServerOptions,
    assignments: Assignments,
  ) {
    this.#deps = deps;
    this.#options = options;
    this.#assignments = assignments;
    this.#caCertificatePem = options.identity.caCertificatePem;
    this.#machines = new AssignedMachines({
      ...deps,
      encryptionKey: options.identity.encryptionKey,
      vaultId: options.vaultId,
      credit: new CreditPool({ machines: () => this.#machines.list().length }),
    });
    this.#relay = new EnrolmentRelay(deps, options);
    this.#uploadLimit = new UploadLimit(deps);
    deps.cache.limitUploads(() => this.#uploadLimit.bytesPerSecond);
    this.#status = new StatusReport(
      { ...deps, assignments, machines: this.#machines, uploadLimit: this.#uploadLimit },
      { name: options.name, version: options.version, endpoints: options.endpoints },
    );
  }

  /** Takes up what was assigned before, and listens. Throws ChannelError when the port can't be had. */
  static async start(
    deps: ProcessServerDeps,
    options: ProcessServerOptions,
  ): Promise<ProcessServer> {
    await ensureDirectory(deps.disk, RECORDS_DIRECTORY);
    const assignments = await Assignments.open(deps, options);
    const server = new ProcessServer(deps, options, assignments);
    await server.#begin();
    return server;
  }

  get port(): number {
    return this.#listener?.port ?? this.#options.port;
  }

  /** What metrics are made of. */
  figures(): ServerFigures {
    return {
      status: this.#status.build(),
      totals: this.#status.totals,
      machines: this.#machines.list().map((machine) => {
        const { namespace, name } = machine.assignment();
        return { namespace, machine: name, status: machine.status() };
      }),
    };
  }

  /** Follows assignments and tells its status until the signal; then ends sessions in order and closes the journals. */
  async run(signal: AbortSignal): Promise<void> {
    await Promise.all([
      this.#every(ASSIGNMENTS_POLL_MS, signal, () => this.#followAssignments()),
      this.#every(STATUS_MS, signal, () => this.#status.write()),
    ]);
    await this.#close();
  }

  async #begin(): Promise<void> {
    const { identity, port } = this.#options;
    const { current } = this.#assignments;
    if (current !== undefined) {
      this.#caCertificatePem = current.caCertificatePem;
      this.#uploadLimit.follow(current.bandwidth);
      await this.#machines.apply(current);
    }
    this.#listener = await this.#deps.listen({
      port,
      cert: identity.certificatePem,
      key: identity.privateKeyPem,
      ca: this.#caCertificatePem,
      onChannel: (channel) => this.#accept(channel),
      onHandshakeFailed: ({ address, error }) =>
        this.#deps.logger.debug({ address, error }, 'A TLS handshake failed'),
    });
    this.#deps.logger.info({ port: this.#listener.port }, 'Listening for agents');
  }

  async #followAssignments(): Promise<void> {
    const isNew = await this.#assignments.poll();
    const { current } = this.#assignments;
    if (!isNew || current === undefined) return;
    if (current.caCertificatePem !== this.#caCertificatePem) {
      const { identity } = this.#options;
      this.#caCertificatePem = current.caCertificatePem;
      this.#listener?.replaceCertificate({
        cert: identity.certificatePem,
        key: identity.privateKeyPem,
        ca: current.caCertificatePem,
      });
    }
    this.#uploadLimit.follow(current.bandwidth);
    await this.#machines.apply(current);
  }

  async #every(
    intervalMs: number,
    signal: AbortSignal,
    action: () => Promise<void>,
  ): Promise<void> {
    while (!signal.aborted) {
      await action().catch((error: unknown) =>
        this.#deps.logger.error(
          { code: errorCode(error), error },
          'A round failed; it is tried again',
        ),
      );
      await this.#deps.clock.sleep(intervalMs, signal).catch(() => undefined);
    }
  }

  async #close(): Promise<void> {
    await this.#listener?.close();
    await this.#machines.close();
    const farewell = refusal(RefusalCode.ShuttingDown, 'The process server stops.', 'soon');
    const closing = [...this.#connections].map((connection) =>
      connection.closeWith(FrameType.Refused, farewell),
    );
    await Promise.allSettled([...closing, ...this.#serving]);
  }

  // ------------------------------------------------------------------------------------------------ connections

  #accept(channel: Channel): void {
    const isStranger = channel.peer.certificate.state !== 'Verified';
    if (isStranger && this.#strangers >= STRANGERS_MAX) {
      channel.destroy();
      return;
    }
    if (isStranger) this.#strangers += 1;
    const connection = new Connection({
      channel,
      clock: this.#deps.clock,
      accepts: framesFrom.stranger,
      farewell: protocolFarewell,
    });
    this.#connections.add(connection);
    const served = this.#serve(connection)
      .catch((error: unknown) => this.#connectionFailed(connection, error))
      .finally(() => {
        if (isStranger) this.#strangers -= 1;
        this.#connections.delete(connection);
        this.#serving.delete(served);
      });
    this.#serving.add(served);
  }

  async #serve(connection: Connection): Promise<void> {
    const first = await connection.receive();
    if (first === undefined) return;
    if (first.type === FrameType.EnrolBegin) await this.#relay.serve(connection, first.message);
    else if (first.type === FrameType.Hello) await this.#serveMachine(connection, first.message);
    else
      await this.#refuse(
        connection,
        refusal(
          RefusalCode.ProtocolBroken,
          'A connection begins with Hello or EnrolBegin.',
          'soon',
        ),
      );
  }

  async #serveMachine(connection: Connection, hello: Hello): Promise<void> {
    const stranger = this.#refusalOfCertificate(connection, hello);
    if (stranger !== undefined) {
      await this.#refuse(connection, stranger);
      return;
    }
    const machine = this.#machines.get(hello.machineId);
    if (machine !== undefined) {
      await machine.serve(connection, hello);
      return;
    }
    const endpoints = this.#machines.redirect(hello.machineId);
    if (endpoints !== undefined && endpoints.length > 0) {
      const { machineId } = hello;
      this.#deps.logger.info({ machineId, endpoints }, 'An agent is sent to its process server');
      await connection.closeWith(FrameType.Redirect, { endpoints: endpoints.slice(0, 32) });
      return;
    }
    await this.#refuse(connection, this.#notAssigned(hello));
  }

  #refusalOfCertificate(connection: Connection, hello: Hello): Refusal | undefined {
    const { certificate } = connection.peer;
    if (certificate.state === 'None')
      return refusal(
        RefusalCode.CertificateRequired,
        'Hello came without a client certificate. Enrol the machine first.',
      );
    if (certificate.state === 'Refused')
      return refusal(
        RefusalCode.CertificateRefused,
        `The machine's certificate does not count in this vault (${certificate.reason}). Enrol the machine again.`,
        'muchLater',
      );
    const holder = machineOfIdentities(certificate.identities);
    if (holder === hello.machineId) return undefined;
    const text = `The certificate is for ${certificate.identities.join(', ') || 'nobody'}, but the agent says that it is machine ${hello.machineId}. A certificate speaks for one machine alone: enrol this machine itself.`;
    this.#machines
      .get(hello.machineId)
      ?.noteError(
        RefusalCode.CertificateOfAnotherMachine,
        `${text} It came from ${connection.peer.address}.`,
      );
    return refusal(RefusalCode.CertificateOfAnotherMachine, text, 'muchLater');
  }

  #notAssigned(hello: Hello): Refusal {
    if (!this.#machines.known)
      return refusal(
        RefusalCode.NotReady,
        'This process server has not read its assignments yet.',
        'soon',
      );
    return refusal(
      RefusalCode.NotAssigned,
      `Machine ${hello.machineId} is not assigned to process server ${this.#options.name}. Create a ProtectedVM for it whose processServerRef names this one, or connect to the one that it names.`,
    );
  }

  async #refuse(connection: Connection, reason: Refusal): Promise<void> {
    const { address } = connection.peer;
    this.#deps.logger.warn(
      { code: reason.code, address },
      `An agent was refused: ${reason.message}`,
    );
    await connection.closeWith(FrameType.Refused, reason);
  }

  #connectionFailed(connection: Connection, error: unknown): void {
    const { address } = connection.peer;
    this.#deps.logger.info(
      { code: errorCode(error), address, error },
      'A connection ended before it became a session',
    );
  }
}
