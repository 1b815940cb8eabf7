/** Every barrier that a process server acknowledged, and whether the journal has it (invariant 1). */
import type { ChainWatch } from './chainWatch.ts';

export interface Acknowledged {
  machineId: string;
  lsn: bigint;
  /** The time that it was asked to have. */
  askedMs: number | undefined;
  server: string;
  writerEpoch: number;
  atMs: number;
}

export interface AcknowledgementsDeps {
  chains: ChainWatch;
  isInAzure: (machineId: string) => boolean;
  /** When a process server lost what it had, last. */
  lostAtMs: (server: string) => number;
}

export class Acknowledgements {
  readonly #deps: AcknowledgementsDeps;
  readonly #all: Acknowledged[] = [];

  constructor(deps: AcknowledgementsDeps) {
    this.#deps = deps;
  }

  add(acknowledged: Acknowledged): void {
    this.#all.push(acknowledged);
  }

  /** Those of before a moment that are not in the journal, and have no reason not to be. */
  missing(beforeMs: number): string[] {
    return this.#all
      .filter((barrier) => barrier.atMs < beforeMs && this.#isMissing(barrier))
      .map(
        ({ lsn, machineId, server, atMs }) =>
          `barrier ${lsn} of ${machineId} was acknowledged by ${server} at ${Math.round(atMs)} and is not in the journal`,
      );
  }

  #isMissing({ machineId, lsn, askedMs, server, writerEpoch, atMs }: Acknowledged): boolean {
    const { chains, isInAzure, lostAtMs } = this.#deps;
    if (chains.holds(machineId, { lsn, askedMs }) || isInAzure(machineId)) return false;
    // Another writer came before it was uploaded: the agent sends what it carried again, under other LSNs.
    if (chains.newestEpoch(machineId) > writerEpoch) return false;
    return lostAtMs(server) < atMs;
  }
}
