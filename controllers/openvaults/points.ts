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
  newest: PointSummary | undefined;
  newestAppConsistent: PointSummary | undefined;
}

/** Points are listed by name; their documents are read only where a kind or a time is shown, and never twice. */
const APP_CONSISTENT_LOOKBACK = 128;
/** 15 days of a point each 15 s is 86,400; the ladder keeps far fewer. */
const POINTS_MAX = 100_000;

export class PointsReader {
  readonly #objects: ObjectStore;
  readonly #known = new Map<string, Map<string, PointSummary>>();

  constructor(deps: { objects: ObjectStore }) {
    this.#objects = deps.objects;
  }

  /** Rejects with a StoreError or VaultDocumentError. */
  async summary(machineId: string): Promise<PointsSummary> {
    const keys: string[] = [];
    for await (const info of this.#objects.list(vaultLayout.pointsPrefix(machineId))) {
      if (info.key.endsWith('.json')) keys.push(info.key);
      if (keys.length >= POINTS_MAX) break;
    }
    const known = this.#forgetOthers(machineId, keys);
    const newest = await this.#read(known, keys.at(-1));
    return {
      count: keys.length,
      oldest: await this.#read(known, keys[0]),
      newest,
      newestAppConsistent: await this.#newestApp(known, keys),
    };
  }

  forget(machineId: string): void {
    this.#known.delete(machineId);
  }

  async #newestApp(
    known: Map<string, PointSummary>,
    keys: readonly string[],
  ): Promise<PointSummary | undefined> {
    for (const key of keys.slice(-APP_CONSISTENT_LOOKBACK).reverse()) {
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
