/**
 * The figures that metrics show, kept by the controllers as times and positions, never as ages: an age is computed when somebody
 * looks, so that it keeps rising when the process that should have reported is dead.
 */

export interface MachineFigures {
  /** Time (in the vault's clock) of the newest barrier that is durable; undefined before the first. */
  durableMs: number | undefined;
  newestPointMs: number | undefined;
  rpoThresholdSeconds: number;
  /** The vault's clock, now. */
  vaultNow(): number;
  lsn: Partial<Record<'captured' | 'journaled' | 'uploaded' | 'applied' | 'recoveryPoint', bigint>>;
  bytesBehind: Partial<Record<'agent' | 'cache' | 'applier', number>>;
  /** 0–1; undefined when nothing is being replicated for the first time. */
  initialReplicationRatio: number | undefined;
}

export interface ProcessServerFigures {
  /** In the vault's clock. */
  heartbeatMs: number | undefined;
  vaultNow(): number;
  machines: number;
  cacheTotalBytes: number;
  cacheFreeBytes: number;
  inBytesPerSecond: number;
  outBytesPerSecond: number;
}

export interface FailoverFigures {
  type: string;
  outcome: string;
  /** Steps by state. */
  steps: Record<'Running' | 'Done' | 'Failed', number>;
  rpoSeconds: number | undefined;
  rtoSeconds: number | undefined;
}

interface Named {
  namespace: string;
  name: string;
}

/** One board an operator; keys go when their object goes. */
export class Figures {
  readonly machines = new Board<MachineFigures>();
  readonly processServers = new Board<ProcessServerFigures>();
  readonly failovers = new Board<FailoverFigures>();

  clear(): void {
    for (const board of [this.machines, this.processServers, this.failovers]) board.clear();
  }
}

export class Board<T> {
  readonly #entries = new Map<string, Named & { figures: T }>();

  set(name: Named, figures: T): void {
    this.#entries.set(`${name.namespace}/${name.name}`, {
      namespace: name.namespace,
      name: name.name,
      figures,
    });
  }

  remove(name: Named): void {
    this.#entries.delete(`${name.namespace}/${name.name}`);
  }

  clear(): void {
    this.#entries.clear();
  }

  *[Symbol.iterator](): Iterator<Named & { figures: T }> {
    yield* this.#entries.values();
  }
}
