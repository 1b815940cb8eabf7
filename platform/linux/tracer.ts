/**
 * Tracking by the kernel's own tracing: an instance in tracefs that belongs to one machine identity (tracing is per kernel, not per
 * agent), with the completion of every request that is no read, on the tracked disks alone (design §5).
 */
import { execFile } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { Worker } from 'node:worker_threads';
import { TracingError } from '../deviceErrors.ts';
import { errorCode, errorMessage } from '../errors.ts';
import type { BlockDeviceIdentity, Clock, Tracer, WriteEvent } from '../ports.ts';
import { HeldDiscards } from './heldDiscards.ts';
import {
  EVENT_NUMBERS,
  type EventFormat,
  EventKind,
  parseEventFormat,
  parsePageLayout,
} from './ringBuffer.ts';
import type { TraceWorkerAnswer, TraceWorkerData } from './traceWorker.ts';

const TRACEFS = '/sys/kernel/tracing';
const COMPLETE = 'block/block_rq_complete';
const QUEUE = 'block/block_bio_queue';
const BUFFERS_TOTAL_KB = 64 * 1024;
const BUFFER_MIN_KB = 1024;
const BUFFER_MAX_KB = 8 * 1024;
const REMOVE_ATTEMPTS = 20;
const REMOVE_PAUSE_MS = 50;
const kinds: Record<number, WriteEvent['kind']> = {
  [EventKind.write]: 'write',
  [EventKind.discard]: 'discard',
  [EventKind.other]: 'other',
};

export type TrackedDevice = BlockDeviceIdentity & { multiRangeDiscards: boolean };

/** A tracefs file of the instance and what it must say. */
interface Setting {
  file: string;
  value: string;
}

export class LinuxTracer implements Tracer {
  readonly #instance: string;
  readonly #clock: Clock;
  readonly #bufferKb: number | undefined;
  #settings: Setting[] = [];
  #worker: TraceReader | undefined;
  #queueId: number | undefined;
  #held = new Map<number, HeldDiscards>();

  /** `name`: unique on this kernel, as `farshore-<machineId>`. `bufferKb`: per CPU; by default 64 MiB over all CPUs. */
  constructor(options: { name: string; clock: Clock; bufferKb?: number }) {
    this.#instance = path.join(TRACEFS, 'instances', options.name);
    this.#clock = options.clock;
    this.#bufferKb = options.bufferKb;
  }

  async start(devices: readonly TrackedDevice[]): Promise<{ adopted: boolean }> {
    await this.stop();
    await mountTracefs();
    this.#settings = this.#settingsFor(devices);
    const adopted = existsSync(this.#instance) && this.#mismatch() === undefined;
    if (!adopted) await this.#create();
    const formats: EventFormat[] = [parseEventFormat(this.#read(`events/${COMPLETE}/format`))];
    this.#held = new Map();
    this.#queueId = undefined;
    if (devices.some((device) => device.multiRangeDiscards)) {
      const queue = parseEventFormat(this.#read(`events/${QUEUE}/format`));
      this.#queueId = queue.id;
      formats.push(queue);
      for (const device of devices)
        if (device.multiRangeDiscards) this.#held.set(device.devT, new HeldDiscards());
    }
    const layout = parsePageLayout(readFileSync(path.join(TRACEFS, 'events/header_page'), 'utf8'));
    // As it was rounded up, per CPU.
    const bufferBytes = Number.parseInt(this.#read('buffer_size_kb'), 10) * 1024;
    this.#worker = new TraceReader({ instance: this.#instance, bufferBytes, layout, formats });
    return { adopted };
  }

  async drain(
    onEvent: (event: WriteEvent) => void,
    options: { last?: boolean } = {},
  ): Promise<{ lost: number }> {
    const worker = this.#worker;
    if (worker === undefined) throw new TracingError('Tracing was not started.');
    const { events, count, lost } = await worker.drain(options.last === true);
    for (let index = 0; index < count; index += 1) this.#report(events, index, onEvent);
    let more = 0;
    for (const [devT, held] of this.#held) {
      const taken = held.take(this.#clock.monotonic());
      if (taken.lost) more += 1;
      for (const range of taken.ranges)
        onEvent({ devT, ...range, kind: 'discard', counted: false });
    }
    return { lost: lost + more };
  }

  async intact(): Promise<{ intact: true } | { intact: false; problem: string }> {
    const problem = this.#mismatch();
    return problem === undefined ? { intact: true } : { intact: false, problem };
  }

  async stop(options?: { keep: boolean }): Promise<void> {
    await this.#worker?.stop();
    const started = this.#worker !== undefined;
    this.#worker = undefined;
    if (started && options?.keep !== true) await this.#remove();
  }

  #report(events: Float64Array, index: number, onEvent: (event: WriteEvent) => void): void {
    const at = index * EVENT_NUMBERS;
    const id = events[at] ?? 0;
    const devT = events[at + 1] ?? 0;
    const sector = events[at + 2] ?? 0;
    const sectorCount = events[at + 3] ?? 0;
    const kind = events[at + 4] ?? 0;
    const held = this.#held.get(devT);
    if (id === this.#queueId) {
      if (kind === EventKind.discard) held?.ask({ sector, sectorCount });
      return;
    }
    if (kind === EventKind.discard) held?.complete(sectorCount);
    onEvent({ devT, sector, sectorCount, kind: kinds[kind] ?? 'other', counted: true });
  }

  #settingsFor(devices: readonly TrackedDevice[]): Setting[] {
    const cpus = readdirSync(path.join(TRACEFS, 'per_cpu')).length;
    const share = Math.floor(BUFFERS_TOTAL_KB / cpus);
    const bufferKb = this.#bufferKb ?? Math.min(BUFFER_MAX_KB, Math.max(BUFFER_MIN_KB, share));
    const which = (chosen: readonly TrackedDevice[]) =>
      chosen.map((device) => `dev == ${device.devT}`).join(' || ');
    const settings = [
      { file: 'buffer_size_kb', value: String(bufferKb) },
      {
        file: `events/${COMPLETE}/filter`,
        // Not "writes and discards": write-zeroes and unnamed operations change the disk too.
        value: `(${which(devices)}) && nr_sector > 0 && !(rwbs ~ "*R*")`,
      },
      { file: `events/${COMPLETE}/enable`, value: '1' },
    ];
    const multiRange = devices.filter((device) => device.multiRangeDiscards);
    if (multiRange.length > 0)
      settings.push(
        { file: `events/${QUEUE}/filter`, value: `(${which(multiRange)}) && rwbs ~ "*D*"` },
        { file: `events/${QUEUE}/enable`, value: '1' },
      );
    settings.push({ file: 'tracing_on', value: '1' });
    return settings;
  }

  async #create(): Promise<void> {
    await this.#remove();
    try {
      mkdirSync(this.#instance);
      for (const { file, value } of this.#settings)
        writeFileSync(path.join(this.#instance, file), value);
    } catch (cause) {
      throw new TracingError(
        `The kernel does not let us trace block devices (${errorMessage(cause)}). The agent needs root, tracefs and the event block_rq_complete.`,
        { cause },
      );
    }
    const problem = this.#mismatch();
    if (problem !== undefined) throw new TracingError(`Tracing could not be set up: ${problem}.`);
  }

  async #remove(): Promise<void> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        rmdirSync(this.#instance);
        return;
      } catch (cause) {
        if (errorCode(cause) === 'ENOENT') return;
        // The files of a reader that has just ended may still be being closed.
        if (errorCode(cause) !== 'EBUSY' || attempt === REMOVE_ATTEMPTS)
          throw new TracingError(
            `The tracing instance ${this.#instance} is in use: another agent for the same machine runs here, or somebody reads it. Stop that one first.`,
            { cause },
          );
        await this.#clock.sleep(REMOVE_PAUSE_MS);
      }
    }
  }

  #mismatch(): string | undefined {
    for (const { file, value } of this.#settings) {
      let found: string;
      try {
        found = this.#read(file).trim();
      } catch (error) {
        return `${file} of the tracing instance can't be read: ${errorMessage(error)}`;
      }
      // The kernel rounds the size up to whole pages.
      if (file === 'buffer_size_kb' && Number.parseInt(found, 10) >= Number(value)) continue;
      if (found !== value) return `${file} of the tracing instance is "${found}", not "${value}"`;
    }
    return undefined;
  }

  #read(file: string): string {
    return readFileSync(path.join(this.#instance, file), 'utf8');
  }
}

/** The worker that empties the buffers, seen from the agent's thread. */
class TraceReader {
  readonly #worker: Worker;
  readonly #waiting = new Map<
    number,
    { resolve: (answer: TraceWorkerAnswer) => void; reject: (error: Error) => void }
  >();
  #next = 1;
  #failure: Error | undefined;

  constructor(workerData: TraceWorkerData) {
    const extension = path.extname(import.meta.filename);
    this.#worker = new Worker(new URL(`./traceWorker${extension}`, import.meta.url), {
      workerData,
    });
    this.#worker.on('message', (answer: TraceWorkerAnswer) => {
      this.#waiting.get(answer.drain)?.resolve(answer);
      this.#waiting.delete(answer.drain);
    });
    this.#worker.on('error', (error) => this.#fail(error));
    this.#worker.on('exit', () => this.#fail(new Error('its thread ended')));
  }

  async drain(last: boolean): Promise<{ events: Float64Array; count: number; lost: number }> {
    const drain = this.#next;
    this.#next += 1;
    const answer = await new Promise<TraceWorkerAnswer>((resolve, reject) => {
      if (this.#failure !== undefined) {
        reject(this.#failure);
        return;
      }
      this.#waiting.set(drain, { resolve, reject });
      this.#worker.postMessage({ drain, last });
    });
    if ('problem' in answer)
      throw new TracingError(`The kernel's trace buffer can't be read: ${answer.problem}.`);
    return answer;
  }

  async stop(): Promise<void> {
    await this.#worker.terminate();
  }

  #fail(cause: unknown): void {
    this.#failure ??= new TracingError(
      `The kernel's trace buffer is no longer read: ${errorMessage(cause)}.`,
      { cause },
    );
    for (const { reject } of this.#waiting.values()) reject(this.#failure);
    this.#waiting.clear();
  }
}

async function mountTracefs(): Promise<void> {
  if (existsSync(path.join(TRACEFS, 'instances'))) return;
  try {
    await promisify(execFile)('mount', ['-t', 'tracefs', 'tracefs', TRACEFS]);
  } catch (cause) {
    // Somebody else may have mounted it meanwhile.
    if (existsSync(path.join(TRACEFS, 'instances'))) return;
    throw new TracingError(
      `tracefs can't be mounted at ${TRACEFS} (${errorMessage(cause)}). The agent needs root and a kernel with CONFIG_TRACING.`,
      { cause },
    );
  }
}
