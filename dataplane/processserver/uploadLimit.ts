import type { Clock, Logger } from '../../platform/ports.ts';
import { type Bandwidth, limitInForce, unknownTimeZones } from '../../vault/documents/bandwidth.ts';

const MINUTE_MS = 60_000;

/** The limit of uploads in force, by the newest assignments and the wall clock: it changes at the borders of windows by itself. */
export class UploadLimit {
  readonly #clock: Clock;
  readonly #logger: Logger;
  #bandwidth: Bandwidth = { windows: [] };
  #problem: { code: string; message: string; sinceMs: number } | undefined;
  /** Asked for at every MiB that is sent; the answer only changes at whole minutes. */
  #known: { minute: number; bytesPerSecond: number | undefined } | undefined;

  constructor(deps: { clock: Clock; logger: Logger }) {
    this.#clock = deps.clock;
    this.#logger = deps.logger;
  }

  /** Undefined: no limit. */
  get bytesPerSecond(): number | undefined {
    const nowMs = this.#clock.now();
    const minute = Math.floor(nowMs / MINUTE_MS);
    if (this.#known?.minute !== minute)
      this.#known = { minute, bytesPerSecond: limitInForce(this.#bandwidth, nowMs) };
    return this.#known.bytesPerSecond;
  }

  /** A window that can't be judged here. */
  get problem(): { code: string; message: string; sinceMs: number } | undefined {
    return this.#problem;
  }

  /** From now on this counts; undefined: no limit at any time. */
  follow(bandwidth: Bandwidth | undefined): void {
    this.#bandwidth = bandwidth ?? { windows: [] };
    this.#known = undefined;
    const unknown = unknownTimeZones(this.#bandwidth);
    this.#problem = undefined;
    if (unknown.length === 0) return;
    const message = `Bandwidth windows of time zone ${unknown.join(', ')} are left out: this host's time zone data does not know it. Use another name of the zone, or update this process server.`;
    this.#problem = { code: 'TimeZoneUnknown', message, sinceMs: this.#clock.now() };
    this.#logger.error({ code: this.#problem.code }, message);
  }
}
