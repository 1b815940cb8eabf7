/**
 * Empties the kernel's ring buffers, in a thread of its own, so that they don't overrun while the agent hashes.
 *
 * It keeps events (neighbouring ones merged) until the agent asks for them. When it holds too many it stops reading: the kernel's
 * buffer then overruns, and says so.
 */
import { constants, openSync, readdirSync, readFileSync, readSync } from 'node:fs';
import { setPriority } from 'node:os';
import path from 'node:path';
import { parentPort, workerData } from 'node:worker_threads';
import { errorCode, errorMessage } from '../errors.ts';
import { nextPollMs, POLL_MAX_MS } from './pollInterval.ts';
import {
  droppedEvents,
  EVENT_NUMBERS,
  type EventFormat,
  type EventSink,
  type PageLayout,
  parsePage,
} from './ringBuffer.ts';

export interface TraceWorkerData {
  instance: string;
  /** Of each CPU. */
  bufferBytes: number;
  layout: PageLayout;
  formats: EventFormat[];
}

export type TraceWorkerAnswer =
  | { drain: number; events: Float64Array; count: number; lost: number }
  | { drain: number; problem: string };

const EVENTS_MAX = 1 << 20;
const READ_SIZE = 1 << 16;

class EventList {
  #numbers = new Float64Array(EVENT_NUMBERS * 4096);
  count = 0;

  add(id: number, devT: number, sector: number, sectorCount: number, kind: number): void {
    if (this.#mergeIntoLast(id, devT, sector, sectorCount, kind)) return;
    const at = this.count * EVENT_NUMBERS;
    if (at === this.#numbers.length) {
      const larger = new Float64Array(this.#numbers.length * 2);
      larger.set(this.#numbers);
      this.#numbers = larger;
    }
    this.#numbers[at] = id;
    this.#numbers[at + 1] = devT;
    this.#numbers[at + 2] = sector;
    this.#numbers[at + 3] = sectorCount;
    this.#numbers[at + 4] = kind;
    this.count += 1;
  }

  take(): { events: Float64Array; count: number } {
    const taken = { events: this.#numbers, count: this.count };
    this.#numbers = new Float64Array(EVENT_NUMBERS * 4096);
    this.count = 0;
    return taken;
  }

  #mergeIntoLast(id: number, devT: number, sector: number, sectors: number, kind: number): boolean {
    const last = (this.count - 1) * EVENT_NUMBERS;
    if (last < 0) return false;
    const numbers = this.#numbers;
    const end = (numbers[last + 2] ?? 0) + (numbers[last + 3] ?? 0);
    if (numbers[last] !== id || numbers[last + 1] !== devT || numbers[last + 4] !== kind)
      return false;
    if (end !== sector) return false;
    numbers[last + 3] = (numbers[last + 3] ?? 0) + sectors;
    return true;
  }
}

function run(data: TraceWorkerData, port: NonNullable<typeof parentPort>): void {
  // Whatever the thread that started us gives way to: events that are read too late are lost.
  setPriority(0, 0);
  // An empty buffer is an exception (EAGAIN); without a stack it is cheap.
  Error.stackTraceLimit = 0;
  const perCpu = path.join(data.instance, 'per_cpu');
  const cpus = readdirSync(perCpu).map((cpu) => ({
    stats: path.join(perCpu, cpu, 'stats'),
    pipe: openSync(
      path.join(perCpu, cpu, 'trace_pipe_raw'),
      constants.O_RDONLY | constants.O_NONBLOCK,
    ),
  }));
  const page = new Uint8Array(READ_SIZE);
  const list = new EventList();
  let lostPages = 0;
  let problem: string | undefined;
  const sink: EventSink = (event) =>
    list.add(event.id, event.devT, event.sector, event.sectorCount, event.kind);

  /** The bytes that were there. */
  const empty = (pipe: number, unlimited: boolean): number => {
    let bytes = 0;
    while (unlimited || list.count < EVENTS_MAX) {
      let size: number;
      try {
        size = readSync(pipe, page, 0, READ_SIZE, null);
      } catch (error) {
        if (errorCode(error) === 'EAGAIN') return bytes;
        throw error;
      }
      if (size === 0) return bytes;
      bytes += size;
      const { lost } = parsePage(page.subarray(0, size), {
        layout: data.layout,
        formats: data.formats,
        sink,
      });
      if (lost) lostPages += 1;
    }
    return bytes;
  };
  /** The share of its buffer that the busiest CPU had filled. */
  const emptyAll = (unlimited: boolean): number => {
    if (problem !== undefined) return 0;
    try {
      return Math.max(...cpus.map((cpu) => empty(cpu.pipe, unlimited))) / data.bufferBytes;
    } catch (error) {
      problem = errorMessage(error);
      return 0;
    }
  };
  const dropped = () =>
    cpus.reduce((sum, cpu) => sum + droppedEvents(readFileSync(cpu.stats, 'utf8')), 0);

  let timer: NodeJS.Timeout;
  let interval = POLL_MAX_MS;
  /** By the agent's own drains, since the last look. */
  let drained = 0;
  const poll = () => {
    const { bufferBytes } = data;
    interval = nextPollMs({ afterMs: interval, filled: drained + emptyAll(false), bufferBytes });
    drained = 0;
    timer = setTimeout(poll, interval);
  };
  poll();
  port.on('message', (message: { drain: number; last: boolean }) => {
    // What comes from now on stays in the kernel, for the agent's next life.
    if (message.last) clearTimeout(timer);
    drained += emptyAll(true);
    const reply = answer(message.drain);
    port.postMessage(reply, 'events' in reply ? [reply.events.buffer as ArrayBuffer] : []);
  });

  function answer(drain: number): TraceWorkerAnswer {
    if (problem !== undefined) return { drain, problem };
    try {
      const lost = dropped() + lostPages;
      return { drain, ...list.take(), lost };
    } catch (error) {
      return { drain, problem: errorMessage(error) };
    }
  }
}

if (parentPort !== null) run(workerData as TraceWorkerData, parentPort);
