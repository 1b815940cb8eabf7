/** Tells the vault how this process server and its machines are: one document, one writer, replaced every few seconds. */
import { errorCode, errorMessage } from '../../platform/errors.ts';
import type { Clock, Logger, ObjectStore } from '../../platform/ports.ts';
import { encodeDocument, FORMAT_VERSION } from '../../vault/documents/codec.ts';
import {
  type ProcessServerStatus,
  processServerStatusSchema,
} from '../../vault/documents/processServerStatus.ts';
import { vaultLayout } from '../../vault/layout.ts';
import type { JournalCache } from '../journal/machineJournal.ts';
import type { AssignedMachines } from './assignedMachines.ts';
import type { Assignments } from './assignments.ts';
import type { UploadLimit } from './uploadLimit.ts';

const OFFSET_MS = 60_000;

export interface StatusDeps {
  store: ObjectStore;
  clock: Clock;
  logger: Logger;
  cache: JournalCache;
  assignments: Assignments;
  machines: AssignedMachines;
  uploadLimit: UploadLimit;
}

interface Traffic {
  atMs: number;
  receivedBytes: number;
  backlogBytes: number;
}

export class StatusReport {
  readonly #deps: StatusDeps;
  readonly #about: { name: string; version: string; endpoints: readonly string[] };
  #clockOffsetMs = 0;
  #offsetKnownMs: number | undefined;
  #traffic: Traffic | undefined;
  #uploadedBytes = 0;
  #throughput: ProcessServerStatus['throughput'] = { inBytesPerSecond: 0, outBytesPerSecond: 0 };
  #failing: { code: string; message: string; sinceMs: number } | undefined;

  constructor(
    deps: StatusDeps,
    about: { name: string; version: string; endpoints: readonly string[] },
  ) {
    this.#deps = deps;
    this.#about = about;
  }

  /** Bytes received from agents and uploaded since this process began. */
  get totals(): { receivedBytes: number; uploadedBytes: number } {
    return {
      receivedBytes: this.#traffic?.receivedBytes ?? 0,
      uploadedBytes: this.#uploadedBytes,
    };
  }

  /** Writes the status once. Never throws: a failure is logged when it begins, and told once the vault answers again. */
  async write(): Promise<void> {
    const { store, clock, logger } = this.#deps;
    this.#measureThroughput();
    try {
      await this.#measureOffset();
      const status = this.build();
      await store.put(
        vaultLayout.processServerStatus(this.#about.name),
        encodeDocument(processServerStatusSchema, status),
      );
      if (this.#failing !== undefined) logger.info({}, 'The status can be written again');
      this.#failing = undefined;
    } catch (error) {
      const code = errorCode(error);
      if (this.#failing?.code !== code)
        logger.warn({ code, error }, 'The status can not be written to the vault');
      this.#failing ??= { code, message: errorMessage(error), sinceMs: clock.now() };
    }
  }

  /** How things are now; throughput is of the time before the last `write`. */
  build(): ProcessServerStatus {
    const { clock, cache, assignments, machines, uploadLimit } = this.#deps;
    const { name, version, endpoints } = this.#about;
    const { current } = assignments;
    const usage = cache.usage();
    return {
      name,
      version,
      formatVersion: FORMAT_VERSION,
      heartbeatMs: clock.now(),
      clockOffsetMs: this.#clockOffsetMs,
      assignments:
        current === undefined
          ? undefined
          : { controllerEpoch: current.controllerEpoch, generation: current.generation },
      cache: {
        totalBytes: usage.totalBytes,
        freeBytes: usage.freeBytes,
        oldestNotUploadedMs: usage.oldestNotUploadedMs,
      },
      throughput: this.#throughput,
      uploadLimitBytesPerSecond: uploadLimit.bytesPerSecond,
      endpoints: [...endpoints],
      machines: machines.list().map((machine) => machine.status()),
      errors: [assignments.problem, uploadLimit.problem].filter((one) => one !== undefined),
    };
  }

  #measureThroughput(): void {
    const before = this.#traffic;
    const now: Traffic = {
      atMs: this.#deps.clock.monotonic(),
      receivedBytes: 0,
      backlogBytes: 0,
    };
    for (const machine of this.#deps.machines.list()) {
      now.receivedBytes += machine.traffic.receivedBytes;
      now.backlogBytes += machine.traffic.backlogBytes;
    }
    this.#traffic = now;
    if (before === undefined || now.atMs <= before.atMs) return;
    const seconds = (now.atMs - before.atMs) / 1000;
    // A machine that left takes its counters along.
    const received = Math.max(0, now.receivedBytes - before.receivedBytes);
    const uploaded = Math.max(0, received + before.backlogBytes - now.backlogBytes);
    this.#uploadedBytes += uploaded;
    this.#throughput = {
      inBytesPerSecond: received / seconds,
      outBytesPerSecond: uploaded / seconds,
    };
  }

  async #measureOffset(): Promise<void> {
    const { clock, store } = this.#deps;
    const now = clock.monotonic();
    if (this.#offsetKnownMs !== undefined && now - this.#offsetKnownMs < OFFSET_MS) return;
    const before = clock.now();
    const serverTime = await store.serverTime();
    // The middle of the call; a Date header has whole seconds.
    this.#clockOffsetMs = Math.round((before + clock.now()) / 2 - serverTime);
    this.#offsetKnownMs = now;
  }
}
