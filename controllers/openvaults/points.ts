/** The recovery points of one machine as they are shown: how many, how old, the newest of each kind. */
import type { ObjectStore } from '../../platform/ports.ts';
import { decodeDocument, type Lsn, pointDocumentSchema } from '../../vault/documents.ts';
import { vaultLayout } from '../../vault/layout.ts';

export interface PointSummary {
  /** What a Failover's recoveryPoint.name names: the LSN. */
  name: string;
  lsn: Lsn;
  timeMs: number;
  consistency: 'Crash' | 'App';
}

export interface PointsSummary {
  count: number;
  oldest: PointSummary | undefined;
  /** Newest first. */
  recent: PointSummary[];
  newestCrash: PointSummary | undefined;
  newestApp: PointSummary | undefined;
}

/** Points are listed by name; their documents are read only where a kind or a time is shown, and never twice. */
const RECENT = 20;
/** App-consistent points are at least an hour apart, which may be 60 crash-consistent ones back. */
const APP_LOOKBACK = 240;
/** 15 days of a point each 15 s is 86,400; the ladder keeps far fewer. */
const POINTS_MAX = 100_000;

export class PointsReader {
  readonly #objects: ObjectStore;
  readonly #known = new Map<string, Map<string, PointSummary>>();

  constructor(deps: { objects: ObjectStore }) {
    this.#objects = deps.objects;
  }

  /**
   * `appConsistent`: whether the policy makes such points at all; looking for one costs a read a point.
   * Rejects with a StoreError or VaultDocumentError.
   */
  async summary(machineId: string, options: { appConsistent: boolean }): Promise<PointsSummary> {
    const keys: string[] = [];
    for await (const info of this.#objects.list(vaultLayout.pointsPrefix(machineId))) {
      if (info.key.endsWith('.json')) keys.push(info.key);
      if (keys.length >= POINTS_MAX) break;
    }
    const known = this.#forgetOthers(machineId, keys);
    const recent: PointSummary[] = [];
    for (const key of keys.slice(-RECENT).reverse()) {
      const point = await this.#read(known, key);
      if (point !== undefined) recent.push(point);
    }
    const app = recent.find((point) => point.consistency === 'App');
    return {
      count: keys.length,
      oldest: await this.#read(known, keys[0]),
      recent,
      newestCrash: recent.find((point) => point.consistency === 'Crash'),
      newestApp: app ?? (options.appConsistent ? await this.#newestApp(known, keys) : undefined),
    };
  }

  forget(machineId: string): void {
    this.#known.delete(machineId);
  }

  async #newestApp(
    known: Map<string, PointSummary>,
    keys: readonly string[],
  ): Promise<PointSummary | undefined> {
    for (const key of keys.slice(-APP_LOOKBACK, -RECENT).reverse()) {
      const point = await this.#read(known, key);
      if (point?.consistency === 'App') return point;
    }
    return undefined;
  }

  async #read(
    known: Map<string, PointSummary>,
    key: string | undefined,
  ): Promise<PointSummary | undefined> {
    if (key === undefined) return undefined;
    const before = known.get(key);
    if (before !== undefined) return before;
    const stored = await this.#objects.get(key);
    // Thinned between the listing and here.
    if (stored === undefined) return undefined;
    const document = decodeDocument(pointDocumentSchema, key, stored.body);
    const point: PointSummary = {
      name: String(document.lsn),
      lsn: document.lsn,
      timeMs: document.timeMs,
      consistency: document.consistency,
    };
    known.set(key, point);
    return point;
  }

  #forgetOthers(machineId: string, keys: readonly string[]): Map<string, PointSummary> {
    const alive = new Set(keys);
    const known = this.#known.get(machineId) ?? new Map<string, PointSummary>();
    for (const key of known.keys()) if (!alive.has(key)) known.delete(key);
    this.#known.set(machineId, known);
    return known;
  }
}
