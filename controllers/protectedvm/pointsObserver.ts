/** Machines' recovery points, listed rarely: when an applier reports a new one, and every minute. */
import type { Clock, Logger } from '../../platform/ports.ts';
import type { OpenVault } from '../openvaults/openVaults.ts';
import type { PointsSummary } from '../openvaults/points.ts';
import type { ObjectKey } from '../runtime/objectKey.ts';

export class PointsObserver {
  readonly #clock: Clock;
  readonly #keepMs: number;
  readonly #known = new Map<ObjectKey, { mark: string; atMs: number; summary: PointsSummary }>();

  constructor(deps: { clock: Clock }, options: { keepMs: number }) {
    this.#clock = deps.clock;
    this.#keepMs = options.keepMs;
  }

  /** As they were last listed while the vault can't be read; undefined when they never were. Never throws. */
  async summary(
    key: ObjectKey,
    wanted: {
      vault: OpenVault | undefined;
      machineId: string | undefined;
      appConsistent: boolean;
      log: Logger;
    },
  ): Promise<PointsSummary | undefined> {
    const { vault, machineId, appConsistent, log } = wanted;
    const known = this.#known.get(key);
    if (vault === undefined || machineId === undefined || !vault.readable) return known?.summary;
    const nowMs = this.#clock.monotonic();
    const mark = String(vault.observation.applied(machineId)?.recoveryPointLsn ?? '');
    if (known?.mark === mark && nowMs - known.atMs < this.#keepMs) return known.summary;
    try {
      const summary = await vault.points.summary(machineId, { appConsistent });
      this.#known.set(key, { mark, atMs: nowMs, summary });
      return summary;
    } catch (error) {
      log.warn({ error }, 'recovery points could not be listed');
      return known?.summary;
    }
  }

  forget(key: ObjectKey): void {
    this.#known.delete(key);
  }
}
