/** What an agent knows beyond one session, and leaves in memory (/run) to the agent that follows it. */
import { errorMessage } from '../../platform/errors.ts';
import type { Logger } from '../../platform/ports.ts';
import type { Configuration } from '../wire/messages.ts';
import type { ErrorList } from './errorList.ts';
import type { MachineCapture } from './machineCapture.ts';
import type { AgentStateStore, SavedState } from './state.ts';

export interface AgentMemoryDeps {
  machineId: string;
  store: AgentStateStore;
  capture: MachineCapture;
  log: Logger;
  errors: ErrorList;
  /** What others keep, as it is now. */
  kept: () => Pick<SavedState, 'held' | 'resync' | 'scrub'>;
}

export class AgentMemory {
  readonly #deps: AgentMemoryDeps;
  /** Of this boot. */
  facts = { hostname: '', kernel: '', bootId: '' };
  configuration: Configuration | undefined;
  capturedLsn = 0n;
  acknowledgedBarrierLsn = 0n;
  cacheId: string | undefined;
  writerEpoch: number | undefined;
  resyncToken: string | undefined;
  #saving: Promise<boolean> = Promise.resolve(true);
  #savedEvents = 0;

  constructor(deps: AgentMemoryDeps) {
    this.#deps = deps;
  }

  /** Events taken when it was last saved. */
  get savedEvents(): number {
    return this.#savedEvents;
  }

  /** What a former agent of this machine identity left, whatever boot it was of; undefined: nothing that can be used. */
  async load(): Promise<SavedState | undefined> {
    const { store, machineId } = this.#deps;
    const saved = await store.load();
    this.capturedLsn = await store.loadCaptured();
    if (saved === undefined || saved.machineId !== machineId) return undefined;
    this.configuration = saved.configuration;
    this.acknowledgedBarrierLsn = saved.acknowledgedBarrierLsn;
    this.cacheId = saved.cacheId;
    this.writerEpoch = saved.writerEpoch;
    this.resyncToken = saved.resyncToken;
    return saved;
  }

  /** Remembers an LSN before it is used. */
  async saveCaptured(lsn: bigint): Promise<void> {
    this.capturedLsn = lsn;
    await this.#deps.store.saveCaptured(lsn);
  }

  /** One after the other, each with what is so when its turn comes. Resolves with whether it is saved. */
  save(): Promise<boolean> {
    this.#saving = this.#saving.then(() => this.#saveNow());
    return this.#saving;
  }

  async #saveNow(): Promise<boolean> {
    const { store, machineId, capture, kept, log, errors } = this.#deps;
    this.#savedEvents = capture.tracking?.eventsTaken ?? 0;
    try {
      await store.save({
        machineId,
        bootId: this.facts.bootId,
        cacheId: this.cacheId,
        writerEpoch: this.writerEpoch,
        acknowledgedBarrierLsn: this.acknowledgedBarrierLsn,
        resyncToken: this.resyncToken,
        configuration: this.configuration,
        disks: capture.save(),
        ...kept(),
      });
      errors.clear('StateNotSaved');
      return true;
    } catch (error) {
      log.warn({ error }, 'State could not be saved; a restart of the agent needs a resync');
      errors.set('StateNotSaved', errorMessage(error));
      return false;
    }
  }
}
