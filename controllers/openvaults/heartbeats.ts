/** Which process servers live, by the moments at which they wrote their statuses, on the vault's clock. */

/** Silence after which another process server takes a machine over: six of their 5-second reports. */
export const SILENT_MS = 30_000;

export class Heartbeats {
  readonly #known = new Map<string, { sinceMs: number; lastMs: number }>();

  /** A status that was written at this moment has been read. */
  note(name: string, writtenMs: number): void {
    const before = this.#known.get(name);
    const paused = before === undefined || writtenMs - before.lastMs > SILENT_MS;
    this.#known.set(name, {
      sinceMs: paused ? writtenMs : before.sinceMs,
      lastMs: Math.max(writtenMs, before?.lastMs ?? writtenMs),
    });
  }

  /** It has reported once, and not of late. One that never did is only new. */
  isSilent(name: string, vaultNowMs: number): boolean {
    const known = this.#known.get(name);
    return known !== undefined && vaultNowMs - known.lastMs > SILENT_MS;
  }

  /**
   * It reports now and has for as long as others must be silent to be given up. After an outage of the vault the first to report again
   * is not steady yet, and by the time it is, the others report too.
   */
  isSteady(name: string, vaultNowMs: number): boolean {
    const known = this.#known.get(name);
    if (known === undefined || this.isSilent(name, vaultNowMs)) return false;
    return known.lastMs - known.sinceMs >= SILENT_MS;
  }
}
