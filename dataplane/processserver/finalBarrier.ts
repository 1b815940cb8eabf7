/**
 * The last barrier of a planned failover: wanted, under way, or done.
 *
 * It counts for as long as the source stands still behind it, and only the agent knows that. A barrier that was taken is done while the
 * agent, in the same session, waits for its upload; from then on because the agent says in every status that it keeps the machine
 * frozen (or turned it off). When it says otherwise, or its session ends before it said so, the machine may run on: what was told of it
 * is taken back, and the barrier is asked for again.
 */
import type { Assignment } from '../../vault/documents/assignments.ts';
import type { MachineMemory } from './machineRecord.ts';
import type { AgentStatus } from './machineSession.ts';

export interface FinalBarrierOptions {
  memory: MachineMemory;
  wanted: () => Assignment['finalSync'];
  /** LSN of the newest barrier in the vault. */
  uploadedBarrierLsn: () => bigint | undefined;
}

export class FinalBarrier {
  readonly #options: FinalBarrierOptions;
  /** Taken in this session; its agent will say that it stays frozen, or that the barrier is void. */
  #isUnderWay = false;
  /** For which failover the connected agent says that the machine stands still. */
  #heldFor: string | undefined;

  constructor(options: FinalBarrierOptions) {
    this.#options = options;
  }

  get state(): 'NotWanted' | 'Wanted' | 'Done' {
    const failover = this.#options.wanted()?.failover;
    if (failover === undefined) return 'NotWanted';
    const known = this.#options.memory.record.final;
    const isDone = this.isHeld || known?.failover === failover;
    return isDone ? 'Done' : 'Wanted';
  }

  /** The connected agent says that the machine stands still behind it. */
  get isHeld(): boolean {
    const failover = this.#options.wanted()?.failover;
    return failover !== undefined && this.#heldFor === failover;
  }

  /** It is journaled. Resolves when that is remembered. */
  async taken(barrier: { failover: string; lsn: bigint }): Promise<void> {
    this.#isUnderWay = true;
    await this.#options.memory.save({ final: barrier });
  }

  /**
   * What a status says. The agent holds the machine only once its barrier is uploaded, so that is the newest one there, also when we do
   * not remember having taken it: we were killed right after, or the cache was lost since.
   */
  async reported(final: AgentStatus['final']): Promise<void> {
    const { memory, wanted, uploadedBarrierLsn } = this.#options;
    this.#heldFor = final?.failover;
    if (final === undefined || final.failover !== wanted()?.failover) {
      if (!this.#isUnderWay) await this.#takeBack();
      return;
    }
    this.#isUnderWay = false;
    const { failover, poweredOff } = final;
    const before = memory.record.final;
    const isKnown = before?.failover === failover;
    const lsn = isKnown ? before.lsn : uploadedBarrierLsn();
    if (lsn === undefined || (isKnown && before.poweredOff === poweredOff)) return;
    await memory.save({ final: { failover, lsn, poweredOff } });
  }

  /** The agent could not keep the machine frozen until the upload. */
  async voided(): Promise<void> {
    this.#isUnderWay = false;
    await this.#takeBack();
  }

  /** A machine that was not held yet is thawed when its session ends. */
  async sessionEnded(): Promise<void> {
    this.#isUnderWay = false;
    this.#heldFor = undefined;
    if (this.#options.memory.record.final?.poweredOff === undefined) await this.#takeBack();
  }

  async #takeBack(): Promise<void> {
    const { memory } = this.#options;
    if (memory.record.final !== undefined) await memory.save({ final: undefined });
  }
}
