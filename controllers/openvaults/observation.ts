/**
 * What the vault says of the data plane, as last read: every process server's and applier's status, who is registered, who asks
 * to be enrolled. Read by polling (list, then only what changed), because nothing in the data plane can reach the cluster.
 */
import type { z } from 'zod';
import { errorMessage } from '../../platform/errors.ts';
import type { Clock, Logger, ObjectInfo, ObjectStore, StoredObject } from '../../platform/ports.ts';
import { type ApplierStatus, applierStatusSchema } from '../../vault/documents/applierStatus.ts';
import { type CatalogDocument, catalogDocumentSchema } from '../../vault/documents/catalog.ts';
import { decodeDocument, VaultDocumentError } from '../../vault/documents/codec.ts';
import { type EnrolmentRequest, enrolmentRequestSchema } from '../../vault/documents/enrolment.ts';
import type { MachineStatus } from '../../vault/documents/machineStatus.ts';
import {
  type ProcessServerStatus,
  processServerStatusSchema,
} from '../../vault/documents/processServerStatus.ts';
import { type Registration, registrationSchema } from '../../vault/documents/registration.ts';
import { vaultLayout } from '../../vault/layout.ts';
import { significantOffset } from '../vaultTime.ts';
import { Heartbeats, SILENT_MS } from './heartbeats.ts';

/** More requests than this wait unanswered only when somebody floods the vault: the rest is looked at later. */
const PENDING_ENROLMENTS_MAX = 500;
const DOCUMENTS_MAX = 10_000;
/** A process server's status with its 2,000 machines has about 4 MB. */
const DOCUMENT_BYTES_MAX = 16 << 20;
/** Answered requests stay for a while, so that a lost answer can be fetched again. */
const ENROLMENT_KEPT_MS = 24 * 3_600_000;

export interface PendingEnrolment {
  id: string;
  request: EnrolmentRequest;
}

/** What changed between two readings, so that only the keys concerned are queued. */
export interface ObservedChanges {
  processServers: Set<string>;
  machines: Set<string>;
  enrolments: boolean;
  registrations: boolean;
}

export type OfferedDisk = NonNullable<EnrolmentRequest['disks']>[number];

interface Held<T> {
  etag: string;
  /** When it was written, by the vault's clock. */
  writtenMs: number;
  value: T;
}

export class VaultObservation {
  readonly #objects: ObjectStore;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #statuses = new Map<string, Held<ProcessServerStatus>>();
  readonly #heartbeats = new Heartbeats();
  readonly #appliers = new Map<string, Held<ApplierStatus>>();
  readonly #registrations = new Map<string, Held<Registration>>();
  readonly #catalog = new Map<string, Held<CatalogDocument>>();
  readonly #enrolments = new Map<string, EnrolmentRequest>();
  readonly #offered = new Map<string, OfferedDisk[]>();
  readonly #refused = new Map<string, string>();
  #pending: PendingEnrolment[] = [];
  #old: { key: string; etag: string }[] = [];
  #clockOffsetMs = 0;
  #observedAt: number | undefined;

  constructor(deps: { objects: ObjectStore; clock: Clock; log: Logger }) {
    this.#objects = deps.objects;
    this.#clock = deps.clock;
    this.#log = deps.log;
  }

  /** Wall-clock ms of the last complete reading; undefined before the first. */
  get observedAt(): number | undefined {
    return this.#observedAt;
  }

  /** Now, as the vault's clock has it. */
  vaultNow(): number {
    return this.#clock.now() - this.#clockOffsetMs;
  }

  get pendingEnrolments(): readonly PendingEnrolment[] {
    return this.#pending;
  }

  processServer(name: string): ProcessServerStatus | undefined {
    return this.#statuses.get(vaultLayout.processServerStatus(name))?.value;
  }

  /** When a process server's status was written, by the vault's clock, whatever its own says. */
  reportedMs(name: string): number | undefined {
    return this.#statuses.get(vaultLayout.processServerStatus(name))?.writtenMs;
  }

  /** It has reported before, and not of late. False as long as the vault was not read of late: then nobody's silence means anything. */
  isSilent(processServer: string): boolean {
    return this.#isCurrent() && this.#heartbeats.isSilent(processServer, this.vaultNow());
  }

  /** It reports, and has for a while. */
  isSteady(processServer: string): boolean {
    return this.#isCurrent() && this.#heartbeats.isSteady(processServer, this.vaultNow());
  }

  appliers(): ApplierStatus[] {
    return [...this.#appliers.values()].map((held) => held.value);
  }

  registrations(): Registration[] {
    return [...this.#registrations.values()].map((held) => held.value);
  }

  registration(kind: Registration['kind'], name: string): Registration | undefined {
    return this.#registrations.get(vaultLayout.registration(kind, name))?.value;
  }

  machine(processServer: string, machineId: string): MachineStatus | undefined {
    return this.processServer(processServer)?.machines.find(
      (machine) => machine.machineId === machineId,
    );
  }

  /** A machine's entry; undefined when there is none, or none that can be read. */
  catalog(machineId: string): CatalogDocument | undefined {
    const found = this.#catalog.get(vaultLayout.catalog(machineId))?.value;
    // Copied from another machine's place, it says nothing of this one.
    return found?.machineId === machineId ? found : undefined;
  }

  catalogs(): CatalogDocument[] {
    return [...this.#catalog.values()].map((held) => held.value);
  }

  /** Answered just now: not asked about again before the next reading. */
  noteAnswered(id: string): void {
    this.#pending = this.#pending.filter((pending) => pending.id !== id);
  }

  /** What we have just written is known at once, not at the next reading. */
  noteCatalog(written: { document: CatalogDocument; etag: string }): void {
    const key = vaultLayout.catalog(written.document.machineId);
    this.#catalog.set(key, {
      etag: written.etag,
      writtenMs: this.vaultNow(),
      value: written.document,
    });
  }

  noteRegistration(registration: Registration): void {
    const key = vaultLayout.registration(registration.kind, registration.name);
    // Without its ETag the next reading replaces it.
    this.#registrations.set(key, { etag: '', writtenMs: this.vaultNow(), value: registration });
  }

  noteOfferedDisks(machineId: string, disks: OfferedDisk[]): void {
    this.#offered.set(machineId, disks);
  }

  /** The disks that an agent named when it enrolled with this operator process. */
  offeredDisks(machineId: string): OfferedDisk[] | undefined {
    return this.#offered.get(machineId);
  }

  /** The applier that is furthest with a machine; two may report it while one takes over from the other. */
  applied(machineId: string): ApplierStatus['machines'][number] | undefined {
    let best: ApplierStatus['machines'][number] | undefined;
    for (const held of this.#appliers.values())
      for (const machine of held.value.machines)
        if (
          machine.machineId === machineId &&
          (best === undefined || machine.appliedLsn > best.appliedLsn)
        )
          best = machine;
    return best;
  }

  /** Reads what changed. Rejects with a StoreError when the vault does not answer; what was known stays. */
  async refresh(): Promise<ObservedChanges> {
    const changes: ObservedChanges = {
      processServers: new Set(),
      machines: new Set(),
      enrolments: false,
      registrations: false,
    };
    const asked = this.#clock.now();
    const serverTime = await this.#objects.serverTime();
    const offset = (asked + this.#clock.now()) / 2 - serverTime;
    this.#clockOffsetMs = Math.round(significantOffset(offset));
    await this.#readStatuses(changes);
    await this.#readCatalog(changes);
    await this.#readRegistrations(changes);
    await this.#readEnrolments(changes);
    this.#observedAt = this.#clock.now();
    return changes;
  }

  /** Removes requests that nobody waits for any more. `mayWrite` rejects when this installation is not in control. */
  async removeOldEnrolments(mayWrite: () => Promise<void>): Promise<void> {
    if (this.#old.length > 0) await mayWrite();
    for (const { key, etag } of this.#old.splice(0, 50)) {
      // The request goes first: an answer without a request harms nobody, the other way round it would be answered again.
      if ((await this.#objects.remove(key, { etag })) === 'conflict') continue;
      await this.#objects.remove(key.replace(/\.json$/, '.answer.json'));
    }
  }

  async #readStatuses(changes: ObservedChanges): Promise<void> {
    const seen = new Set<string>();
    for await (const info of this.#list(vaultLayout.statusPrefix)) {
      seen.add(info.key);
      if (info.key.startsWith(`${vaultLayout.statusPrefix}processserver-`))
        await this.#read(info, this.#statuses, processServerStatusSchema, (status) => {
          this.#heartbeats.note(status.name, this.reportedMs(status.name) ?? info.lastModified);
          changes.processServers.add(status.name);
          for (const machine of status.machines) changes.machines.add(machine.machineId);
        });
      else
        await this.#read(info, this.#appliers, applierStatusSchema, (status) => {
          for (const machine of status.machines) changes.machines.add(machine.machineId);
        });
    }
    forget(this.#statuses, seen);
    forget(this.#appliers, seen);
  }

  #isCurrent(): boolean {
    return this.#observedAt !== undefined && this.#clock.now() - this.#observedAt <= SILENT_MS;
  }

  async #readRegistrations(changes: ObservedChanges): Promise<void> {
    const seen = new Set<string>();
    for await (const info of this.#list(vaultLayout.registrationsPrefix)) {
      seen.add(info.key);
      await this.#read(info, this.#registrations, registrationSchema, () => {
        changes.registrations = true;
      });
    }
    if (forget(this.#registrations, seen) > 0) changes.registrations = true;
  }

  async #readCatalog(changes: ObservedChanges): Promise<void> {
    const seen = new Set<string>();
    for await (const info of this.#list(vaultLayout.catalogPrefix)) {
      seen.add(info.key);
      await this.#read(info, this.#catalog, catalogDocumentSchema, (machine) => {
        changes.machines.add(machine.machineId);
        if (machine.processServer !== undefined) changes.processServers.add(machine.processServer);
      });
    }
    forget(this.#catalog, seen);
  }

  async #readEnrolments(changes: ObservedChanges): Promise<void> {
    const requests = new Map<string, ObjectInfo>();
    const answers = new Set<string>();
    for await (const info of this.#list(vaultLayout.enrolmentsPrefix)) {
      const match = /\/([0-9a-f]{64})(\.answer)?\.json$/.exec(info.key);
      if (match?.[1] === undefined) continue;
      if (match[2] === undefined) requests.set(match[1], info);
      else answers.add(match[1]);
    }
    const pending: PendingEnrolment[] = [];
    this.#old = [];
    for (const [id, info] of requests) {
      if (answers.has(id)) {
        this.#enrolments.delete(id);
        if (this.vaultNow() - info.lastModified > ENROLMENT_KEPT_MS)
          this.#old.push({ key: info.key, etag: info.etag });
      } else if (this.vaultNow() - info.lastModified > ENROLMENT_KEPT_MS) {
        // Nobody here may answer it, and whoever asked has gone: left there, such requests would crowd out those that count.
        this.#old.push({ key: info.key, etag: info.etag });
      } else if (pending.length < PENDING_ENROLMENTS_MAX) {
        const request = await this.#enrolment(id, info);
        if (request !== undefined) pending.push({ id, request });
      }
    }
    for (const id of this.#enrolments.keys()) if (!requests.has(id)) this.#enrolments.delete(id);
    changes.enrolments = pending.length > 0;
    this.#pending = pending;
  }

  async #enrolment(id: string, info: ObjectInfo): Promise<EnrolmentRequest | undefined> {
    const known = this.#enrolments.get(id);
    if (known !== undefined) return known;
    const held = new Map<string, Held<EnrolmentRequest>>();
    await this.#read(info, held, enrolmentRequestSchema, (request) => {
      this.#enrolments.set(id, request);
    });
    return this.#enrolments.get(id);
  }

  /** A document that can't be read is reported once a version, and what was known of it before stays. */
  async #read<S extends z.ZodType>(
    info: ObjectInfo,
    into: Map<string, Held<z.output<S>>>,
    schema: S,
    onChange: (value: z.output<S>) => void,
  ): Promise<void> {
    if (into.get(info.key)?.etag === info.etag || this.#refused.get(info.key) === info.etag) return;
    try {
      const stored = await this.#within(info);
      if (stored === undefined) return;
      const value = decodeDocument(schema, info.key, stored.body);
      into.set(info.key, { etag: stored.etag, writtenMs: stored.lastModified, value });
      this.#refused.delete(info.key);
      onChange(value);
    } catch (error) {
      if (!(error instanceof VaultDocumentError)) throw error;
      this.#refused.set(info.key, info.etag);
      this.#log.warn({ key: info.key, error: errorMessage(error) }, 'vault document refused');
    }
  }

  /** Its size is known before it is fetched: one huge document must not take the operator's memory from all machines. */
  async #within(info: ObjectInfo): Promise<StoredObject | undefined> {
    if (info.size > DOCUMENT_BYTES_MAX)
      throw new VaultDocumentError(
        info.key,
        `it is ${info.size} bytes large, over ${DOCUMENT_BYTES_MAX}`,
      );
    return await this.#objects.get(info.key, { length: DOCUMENT_BYTES_MAX });
  }

  async *#list(prefix: string): AsyncGenerator<ObjectInfo> {
    let count = 0;
    for await (const info of this.#objects.list(prefix)) {
      count += 1;
      if (count > DOCUMENTS_MAX) {
        this.#log.warn({ prefix, limit: DOCUMENTS_MAX }, 'vault listing cut short');
        return;
      }
      yield info;
    }
  }
}

function forget(held: Map<string, unknown>, seen: ReadonlySet<string>): number {
  let forgotten = 0;
  for (const key of held.keys())
    if (!seen.has(key)) {
      held.delete(key);
      forgotten += 1;
    }
  return forgotten;
}
