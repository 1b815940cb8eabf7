/** The recovery points of one machine as they are shown: how many, how old, the newest of each kind. */
import type { ObjectStore, StoredObject } from '../../platform/ports.ts';
import { decodeDocument, VaultDocumentError } from '../../vault/documents/codec.ts';
import type { Lsn } from '../../vault/documents/fields.ts';
import { type PointDocument, pointDocumentSchema } from '../../vault/documents/point.ts';
import { vaultLayout } from '../../vault/layout.ts';
import { listPoints } from '../../vault/pointIndex.ts';

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
/** Documents that can't be read are passed over; more than these are not looked at. */
const RECENT_LOOKBACK = 60;
/** App-consistent points are at least an hour apart, which may be 60 crash-consistent ones back. */
const APP_LOOKBACK = 240;

export class PointsReader {
  readonly #objects: ObjectStore;
  readonly #known = new Map<string, Map<string, PointSummary>>();
  readonly #refused = new Map<string, string>();

  constructor(deps: { objects: ObjectStore }) {
    this.#objects = deps.objects;
  }

  /**
   * `appConsistent`: whether the policy makes such points at all; looking for one costs a read a point.
   * Rejects with a StoreError.
   */
  async summary(machineId: string, options: { appConsistent: boolean }): Promise<PointsSummary> {
    const { lsns } = await listPoints(this.#objects, machineId);
    const keys = lsns.map((lsn) => vaultLayout.point(machineId, lsn));
    const known = this.#forgetOthers(machineId, keys);
    const recent: PointSummary[] = [];
    let unusable = 0;
    for (const key of keys.slice(-RECENT_LOOKBACK).reverse()) {
      const point = await this.#read(known, key);
      if (point === undefined) unusable += 1;
      else recent.push(point);
      if (recent.length === RECENT) break;
    }
    const app = recent.find((point) => point.consistency === 'App');
    return {
      // What nobody could bring a machine up from is not counted as a recovery point.
      count: recent.length === 0 ? 0 : keys.length - unusable,
      oldest: (await this.#read(known, keys[0])) ?? recent.at(-1),
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
    const document = this.#decode(key, stored);
    if (document === undefined) return undefined;
    const point: PointSummary = {
      name: String(document.lsn),
      lsn: document.lsn,
      timeMs: document.timeMs,
      consistency: document.consistency,
    };
    known.set(key, point);
    return point;
  }

  /** One that can't be read must not hide those that can. */
  #decode(key: string, stored: StoredObject): PointDocument | undefined {
    if (this.#refused.get(key) === stored.etag) return undefined;
    try {
      const document = decodeDocument(pointDocumentSchema, key, stored.body);
      if (key === vaultLayout.point(document.machineId, document.lsn)) return document;
      throw new VaultDocumentError(
        key,
        `it is of LSN ${document.lsn} of machine ${document.machineId}`,
      );
    } catch (error) {
      if (!(error instanceof VaultDocumentError)) throw error;
      this.#refused.set(key, stored.etag);
      return undefined;
    }
  }

  #forgetOthers(machineId: string, keys: readonly string[]): Map<string, PointSummary> {
    const alive = new Set(keys);
    const known = this.#known.get(machineId) ?? new Map<string, PointSummary>();
    for (const key of known.keys()) if (!alive.has(key)) known.delete(key);
    const prefix = vaultLayout.pointsPrefix(machineId);
    for (const key of this.#refused.keys())
      if (key.startsWith(prefix) && !alive.has(key)) this.#refused.delete(key);
    this.#known.set(machineId, known);
    return known;
  }
}
