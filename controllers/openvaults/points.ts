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
  /** Marked: it holds leaves that are not what they were. */
  damaged?: true;
}

export interface PointsSummary {
  count: number;
  /** How many of them are marked damaged, and the newest that is not; absent when none is marked. */
  damaged?: { count: number; newestSound: PointSummary | undefined };
  oldest: PointSummary | undefined;
  /** Newest first. */
  recent: PointSummary[];
  newestCrash: PointSummary | undefined;
  newestApp: PointSummary | undefined;
}

type KnownPoint = Omit<PointSummary, 'damaged'>;

interface Listed {
  /** Documents that were read, by key. */
  known: Map<string, KnownPoint>;
  /** Keys of those with a mark beside them. */
  marked: ReadonlySet<string>;
}

/** The newest point that is not marked damaged. */
export function newestSound({ recent, damaged }: PointsSummary): PointSummary | undefined {
  return damaged === undefined ? recent[0] : damaged.newestSound;
}

/** Points are listed by name; their documents are read only where a kind or a time is shown, and never twice. */
const RECENT = 20;
/** Documents that can't be read are passed over; more than these are not looked at. */
const RECENT_LOOKBACK = 60;
/** App-consistent points are at least an hour apart, which may be 60 crash-consistent ones back. */
const APP_LOOKBACK = 240;

export class PointsReader {
  readonly #objects: ObjectStore;
  readonly #known = new Map<string, Map<string, KnownPoint>>();
  readonly #refused = new Map<string, string>();

  constructor(deps: { objects: ObjectStore }) {
    this.#objects = deps.objects;
  }

  /**
   * `appConsistent`: whether the policy makes such points at all; looking for one costs a read a point.
   * Rejects with a StoreError.
   */
  async summary(machineId: string, options: { appConsistent: boolean }): Promise<PointsSummary> {
    const { lsns, damaged } = await listPoints(this.#objects, machineId);
    const keys = lsns.map((lsn) => vaultLayout.point(machineId, lsn));
    const marked = new Set([...damaged].map((lsn) => vaultLayout.point(machineId, lsn)));
    const listed = { known: this.#forgetOthers(machineId, keys), marked };
    const sound = keys.filter((key) => !marked.has(key));
    const recent: PointSummary[] = [];
    let unusable = 0;
    for (const key of keys.slice(-RECENT_LOOKBACK).reverse()) {
      const point = await this.#read(listed, key);
      if (point === undefined) unusable += 1;
      else recent.push(point);
      if (recent.length === RECENT) break;
    }
    const newest = (kind: PointSummary['consistency']) => {
      const ofKind = recent.filter((point) => point.consistency === kind);
      return ofKind.find((point) => !point.damaged) ?? ofKind[0];
    };
    const app = newest('App');
    return {
      // What nobody could bring a machine up from is not counted as a recovery point.
      count: recent.length === 0 ? 0 : keys.length - unusable,
      oldest: (await this.#read(listed, keys[0])) ?? recent.at(-1),
      recent,
      newestCrash: newest('Crash'),
      newestApp: app ?? (options.appConsistent ? await this.#newestApp(listed, keys) : undefined),
      ...(sound.length === keys.length
        ? {}
        : {
            damaged: {
              count: keys.length - sound.length,
              newestSound: await this.#newestOf(listed, sound),
            },
          }),
    };
  }

  forget(machineId: string): void {
    this.#known.delete(machineId);
  }

  async #newestOf(listed: Listed, keys: readonly string[]): Promise<PointSummary | undefined> {
    for (const key of keys.slice(-RECENT_LOOKBACK).reverse()) {
      const point = await this.#read(listed, key);
      if (point !== undefined) return point;
    }
    return undefined;
  }

  async #newestApp(listed: Listed, keys: readonly string[]): Promise<PointSummary | undefined> {
    for (const key of keys.slice(-APP_LOOKBACK, -RECENT).reverse()) {
      const point = await this.#read(listed, key);
      if (point?.consistency === 'App') return point;
    }
    return undefined;
  }

  async #read(listed: Listed, key: string | undefined): Promise<PointSummary | undefined> {
    if (key === undefined) return undefined;
    const { known, marked } = listed;
    const mark = marked.has(key) ? { damaged: true as const } : {};
    const before = known.get(key);
    if (before !== undefined) return { ...before, ...mark };
    const stored = await this.#objects.get(key);
    // Thinned between the listing and here.
    if (stored === undefined) return undefined;
    const document = this.#decode(key, stored);
    if (document === undefined) return undefined;
    const point: KnownPoint = {
      name: String(document.lsn),
      lsn: document.lsn,
      timeMs: document.timeMs,
      consistency: document.consistency,
    };
    known.set(key, point);
    return { ...point, ...mark };
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

  #forgetOthers(machineId: string, keys: readonly string[]): Map<string, KnownPoint> {
    const alive = new Set(keys);
    const known = this.#known.get(machineId) ?? new Map<string, KnownPoint>();
    for (const key of known.keys()) if (!alive.has(key)) known.delete(key);
    const prefix = vaultLayout.pointsPrefix(machineId);
    for (const key of this.#refused.keys())
      if (key.startsWith(prefix) && !alive.has(key)) this.#refused.delete(key);
    this.#known.set(machineId, known);
    return known;
  }
}
