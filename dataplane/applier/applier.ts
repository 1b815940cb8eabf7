import { errorCode } from '../../platform/errors.ts';
import type { Random } from '../../platform/ports.ts';
import { type ApplierStatus, applierStatusSchema } from '../../vault/documents/applierStatus.ts';
import { type CatalogDocument, catalogDocumentSchema } from '../../vault/documents/catalog.ts';
import { decodeDocument, encodeDocument, FORMAT_VERSION } from '../../vault/documents/codec.ts';
import type { BoxKey } from '../../vault/keys.ts';
import { vaultLayout } from '../../vault/layout.ts';
import { Gate } from './gate.ts';
import { MachineLoop, type MachineLoopDeps } from './machineLoop.ts';

const DISCOVERY_EVERY_MS = 10_000;
const STATUS_EVERY_MS = 5_000;
const DEFAULT_CONCURRENCY = 4;
/** The status document's own limit on what it lists. */
const MACHINES_MAX = 5_000;

export interface ApplierDeps extends Omit<MachineLoopDeps, 'gate' | 'verifyGate'> {
  random: Random;
}

export interface ApplierOptions {
  name: string;
  version: string;
  vaultId: string;
  /** What the operator seals data keys to. */
  key: BoxKey;
  /** Machines applied at the same time; each holds up to 200 MiB. */
  concurrency?: number;
}

interface Entry {
  loop: MachineLoop;
  etag: string;
  done: Promise<void>;
}

/** Applies the journals of every machine in a vault's catalog. */
export class Applier {
  readonly #deps: ApplierDeps;
  readonly #options: ApplierOptions;
  readonly #holder: string;
  readonly #gate: Gate;
  readonly #verifyGate = new Gate(1);
  readonly #machines = new Map<string, Entry>();
  #lastRoundAt: number;

  constructor(deps: ApplierDeps, options: ApplierOptions) {
    this.#deps = deps;
    this.#options = options;
    const instance = Buffer.from(deps.random.bytes(4)).toString('hex');
    this.#holder = `applier:${options.name}:${instance}`;
    this.#gate = new Gate(options.concurrency ?? DEFAULT_CONCURRENCY);
    this.#lastRoundAt = deps.clock.monotonic();
  }

  /** Works until the signal aborts, then gives every replica back. */
  async run(signal: AbortSignal): Promise<void> {
    let discoveredAt = Number.NEGATIVE_INFINITY;
    while (!signal.aborted) {
      const now = this.#deps.clock.monotonic();
      if (now - discoveredAt >= DISCOVERY_EVERY_MS && (await this.#attempt(() => this.#discover())))
        discoveredAt = now;
      await this.#attempt(() => this.#writeStatus());
      this.#lastRoundAt = this.#deps.clock.monotonic();
      await this.#deps.clock.sleep(STATUS_EVERY_MS, signal).catch(() => {});
    }
    for (const { loop } of this.#machines.values()) loop.end();
    await Promise.all([...this.#machines.values()].map(({ done }) => done));
    await this.#attempt(() => this.#writeStatus());
  }

  /** How long ago (ms) the last round of discovery and status ended: what a health check asks. */
  get silentForMs(): number {
    return this.#deps.clock.monotonic() - this.#lastRoundAt;
  }

  /** Brings the metrics up to date. */
  showMetrics(): void {
    this.#deps.metrics.show(
      [...this.#machines.values()].map(({ loop }) => ({
        ...loop.report(),
        labels: loop.labels,
        newestPointMs: loop.newestPointMs,
        damagedLeaves: loop.report().damaged?.length ?? 0,
        failing: loop.report().error !== undefined,
      })),
    );
  }

  /** Machines that appeared begin, those whose document changed hear of it, those that went end. */
  async #discover(): Promise<void> {
    const seen = new Set<string>();
    for await (const { key, etag } of this.#deps.objects.list(vaultLayout.catalogPrefix)) {
      const machineId = key.slice(vaultLayout.catalogPrefix.length).replace(/\.json$/, '');
      if (key !== vaultLayout.catalog(machineId) || seen.size >= MACHINES_MAX) continue;
      seen.add(machineId);
      if (this.#machines.get(machineId)?.etag === etag) continue;
      const catalog = await this.#readCatalog(key);
      if (catalog !== undefined && catalog.machineId === machineId) this.#put(catalog, etag);
    }
    for (const [machineId, { loop, done }] of this.#machines)
      if (!seen.has(machineId)) {
        loop.end();
        await done;
        this.#machines.delete(machineId);
      }
  }

  async #readCatalog(key: string): Promise<CatalogDocument | undefined> {
    const stored = await this.#deps.objects.get(key);
    if (stored === undefined) return undefined;
    try {
      return decodeDocument(catalogDocumentSchema, key, stored.body);
    } catch (error) {
      // One that can't be read must not keep the others from being applied.
      this.#deps.logger.error({ code: errorCode(error), error, key }, 'a machine is left out');
      return undefined;
    }
  }

  #put(catalog: CatalogDocument, etag: string): void {
    const known = this.#machines.get(catalog.machineId);
    if (known !== undefined) {
      known.etag = etag;
      known.loop.update(catalog);
      return;
    }
    const { vaultId, key } = this.#options;
    const loop = new MachineLoop(
      { ...this.#deps, gate: this.#gate, verifyGate: this.#verifyGate },
      { catalog, vaultId, key, holder: this.#holder },
    );
    this.#machines.set(catalog.machineId, { loop, etag, done: loop.run() });
  }

  async #writeStatus(): Promise<void> {
    const { name, version } = this.#options;
    const status: ApplierStatus = {
      name,
      version,
      formatVersion: FORMAT_VERSION,
      heartbeatMs: this.#deps.clock.now(),
      machines: [...this.#machines.values()].map(({ loop }) => loop.report()),
    };
    await this.#deps.objects.put(
      vaultLayout.applierStatus(name),
      encodeDocument(applierStatusSchema, status),
    );
  }

  /** Whether it worked; what the vault refuses now is tried again in the next round. */
  async #attempt(work: () => Promise<void>): Promise<boolean> {
    try {
      await work();
      return true;
    } catch (error) {
      this.#deps.logger.warn(
        { code: errorCode(error), error },
        'the vault could not be read or written; trying again',
      );
      return false;
    }
  }
}
