/** What is seen of the site while it runs: heartbeats, owners, freezes, bytes received, bytes written by the machines. */
import { setTimeout as delay } from 'node:timers/promises';
import { Catalog } from '../../vault/catalog.ts';
import { decodeDocument } from '../../vault/documents/codec.ts';
import type { MachineStatus } from '../../vault/documents/machineStatus.ts';
import {
  type ProcessServerStatus,
  processServerStatusSchema,
} from '../../vault/documents/processServerStatus.ts';
import { vaultLayout } from '../../vault/layout.ts';
import type { EnduranceSite, Replica } from './site.ts';

const LOOK_EVERY_MS = 500;
/** As the operator sees it (controllers/openvaults/heartbeats.ts). */
const SILENT_MS = 30_000;
const SCRAPE_WITHIN_MS = 1_000;

export interface Owner {
  processServer: string;
  writerEpoch: number;
}

export class Watch {
  readonly #site: EnduranceSite;
  readonly #statuses = new Map<string, ProcessServerStatus>();
  readonly #heartbeats = new Map<string, { sinceMs: number; lastMs: number }>();
  readonly #owners = new Map<string, Owner>();
  /** Bytes received by former lives of a process server, and by this one. */
  readonly #received = new Map<string, { before: number; now: number }>();
  readonly #written = new Map<string, { atMs: number; bytes: number }[]>();
  longestFreezeMs = 0;
  voidedBarriers = 0;
  #ended = false;
  #looking: Promise<void> | undefined;

  constructor(site: EnduranceSite) {
    this.#site = site;
  }

  begin(): void {
    this.#looking = this.#look();
  }

  async end(): Promise<void> {
    this.#ended = true;
    await this.#looking;
  }

  status(processServer: string): ProcessServerStatus | undefined {
    return this.#statuses.get(processServer);
  }

  /** As its owner reports it. */
  machine(machineId: string): MachineStatus | undefined {
    const owner = this.#owners.get(machineId);
    const status = owner === undefined ? undefined : this.#statuses.get(owner.processServer);
    return status?.machines.find((one) => one.machineId === machineId);
  }

  owner(machineId: string): Owner | undefined {
    return this.#owners.get(machineId);
  }

  lastHeartbeatMs(processServer: string): number {
    return this.#heartbeats.get(processServer)?.lastMs ?? 0;
  }

  /** For how long its reports have come without a silence, ms; 0 when they do not come now. */
  steadyForMs(processServer: string): number {
    const known = this.#heartbeats.get(processServer);
    if (known === undefined || Date.now() - known.lastMs > SILENT_MS / 2) return 0;
    return known.lastMs - known.sinceMs;
  }

  /** Bytes of records that agents sent and a process server took, over all its lives, as far as seen. */
  get receivedBytes(): number {
    return [...this.#received.values()].reduce((sum, { before, now }) => sum + before + now, 0);
  }

  /** A look at the counter that is about to be lost. */
  async beforeDeath(replica: Replica): Promise<void> {
    await this.#scrape(replica);
  }

  /** Bytes that the machine's disks were written between the two moments; a second more at either end. */
  writtenBetween(machine: string, fromMs: number, toMs: number): number {
    const seen = this.#written.get(machine) ?? [];
    const before = seen.findLast(({ atMs }) => atMs <= fromMs) ?? seen[0];
    const after = seen.find(({ atMs }) => atMs >= toMs) ?? seen.at(-1);
    return (after?.bytes ?? 0) - (before?.bytes ?? 0);
  }

  async #look(): Promise<void> {
    while (!this.#ended) {
      const begun = performance.now();
      this.#noteWrites();
      // What does not answer is under a fault; the next look may see it.
      await Promise.allSettled([
        ...this.#site.replicas.flatMap((one) => [this.#readStatus(one), this.#scrape(one)]),
        ...this.#site.machines.map(({ machineId }) => this.#readOwner(machineId)),
      ]);
      await delay(Math.max(50, LOOK_EVERY_MS - (performance.now() - begun)));
    }
  }

  #noteWrites(): void {
    for (const { name, source } of this.#site.machines) {
      const seen = this.#written.get(name) ?? [];
      seen.push({ atMs: Date.now(), bytes: source.writtenBytes() });
      this.#written.set(name, seen);
    }
  }

  async #readStatus({ name }: Replica): Promise<void> {
    const key = vaultLayout.processServerStatus(name);
    const stored = await this.#site.stores.objects.get(key);
    if (stored === undefined) return;
    const status = decodeDocument(processServerStatusSchema, key, stored.body);
    this.#statuses.set(name, status);
    for (const { barriers } of status.machines)
      this.longestFreezeMs = Math.max(this.longestFreezeMs, barriers.maxFreezeMs);
    const writtenMs = status.heartbeatMs;
    const known = this.#heartbeats.get(name);
    const paused = known === undefined || writtenMs - known.lastMs > SILENT_MS;
    this.#heartbeats.set(name, { sinceMs: paused ? writtenMs : known.sinceMs, lastMs: writtenMs });
  }

  async #readOwner(machineId: string): Promise<void> {
    const catalog = await new Catalog({ store: this.#site.stores.objects }).read(machineId);
    const processServer = catalog?.document.processServer;
    if (catalog === undefined || processServer === undefined) return;
    this.#owners.set(machineId, { processServer, writerEpoch: catalog.document.writerEpoch });
  }

  async #scrape({ name, metricsUrl }: Replica): Promise<void> {
    const response = await fetch(metricsUrl, { signal: AbortSignal.timeout(SCRAPE_WITHIN_MS) });
    const text = await response.text();
    const line = /^farshore_processserver_received_bytes_total (\S+)$/m.exec(text)?.[1];
    if (line === undefined) return;
    const known = this.#received.get(name) ?? { before: 0, now: 0 };
    const now = Number(line);
    // It began to count anew.
    if (now < known.now) known.before += known.now;
    this.#received.set(name, { before: known.before, now });
  }
}
