/**
 * Virtual time for everything that is simulated. One queue of events; each runs alone, and every promise that can go on because of it
 * has done so before the next one is taken. So the order of all that happens follows from the seed.
 *
 * Fault model: none. A host's wall clock may jump (HostClock); this one only goes forward.
 */
import type { Clock } from '../../platform/ports.ts';
import type { Life } from './life.ts';

interface Event {
  dueMs: number;
  order: number;
  label: string;
  run: (() => void) | undefined;
}

export interface Timer {
  cancel(): void;
}

/** Turns of the event loop that are asked for at once: asking costs a system call each time. */
const TURNS_AT_ONCE = 64;
const WALL_START_MS = Date.UTC(2026, 0, 1);

export class SimTime {
  #nowMs = 0;
  #order = 0;
  #events = 0;
  #trace = 0x811c9dc5;
  #trace2 = 0x1234567;
  readonly #heap: Event[] = [];
  #failure: { error: unknown } | undefined;
  /** Told of every step, for people who look at one seed. */
  onNote: ((text: string) => void) | undefined;

  /** Milliseconds since the run began, with fractions. */
  get nowMs(): number {
    return this.#nowMs;
  }

  get events(): number {
    return this.#events;
  }

  /** What happened so far, hashed: two runs of a seed must agree. */
  get trace(): string {
    return `${(this.#trace >>> 0).toString(16)}-${(this.#trace2 >>> 0).toString(16)}`;
  }

  /** Something that belongs to the trace. */
  note(text: string): void {
    let a = this.#trace;
    let b = this.#trace2;
    for (let index = 0; index < text.length; index += 1) {
      const code = text.charCodeAt(index);
      a = Math.imul(a ^ code, 0x01000193);
      b = Math.imul((b << 5) ^ (b >>> 2) ^ code, 0x9e3779b1);
    }
    this.#trace = Math.imul(a ^ Math.floor(this.#nowMs * 8), 0x01000193);
    this.#trace2 = b;
    this.onNote?.(text);
  }

  after(ms: number, label: string, run: () => void): Timer {
    const event: Event = {
      dueMs: this.#nowMs + Math.max(0, ms),
      order: this.#order++,
      label,
      run,
    };
    push(this.#heap, event);
    return {
      cancel: () => {
        event.run = undefined;
      },
    };
  }

  /** Stops the run with this error. */
  fail(error: unknown): void {
    this.#failure ??= { error };
  }

  /** Runs events until `done`, or until the time is up. Rejects with what an event threw. */
  run(until: { ms: number; done: () => boolean }): Promise<'done' | 'late'> {
    return new Promise((resolve, reject) => {
      let over = false;
      const end = (settle: () => void) => {
        over = true;
        settle();
      };
      const turn = () => {
        if (over) return;
        try {
          if (this.#failure !== undefined) throw this.#failure.error;
          if (until.done()) return end(() => resolve('done'));
          const event = this.#next(until.ms);
          if (event === undefined) return end(() => resolve('late'));
          this.#events += 1;
          this.note(event.label);
          event.run?.();
        } catch (error) {
          end(() => reject(error));
        }
      };
      const turns = () => {
        if (over) return;
        // Node runs what promises allow between two of these, and between these and the next.
        for (let count = 0; count < TURNS_AT_ONCE; count += 1) setImmediate(turn);
        setImmediate(turns);
      };
      turns();
    });
  }

  #next(limitMs: number): Event | undefined {
    for (;;) {
      const first = this.#heap[0];
      if (first === undefined || first.dueMs > limitMs) {
        this.#nowMs = Math.max(this.#nowMs, limitMs);
        return undefined;
      }
      pop(this.#heap);
      if (first.run === undefined) continue;
      this.#nowMs = Math.max(this.#nowMs, first.dueMs);
      return first;
    }
  }
}

/** The clock of one host, as one process of it sees it. */
export class HostClock {
  offsetMs: number;
  readonly #time: SimTime;

  constructor(time: SimTime, offsetMs: number) {
    this.#time = time;
    this.offsetMs = offsetMs;
  }

  now(): number {
    return Math.floor(WALL_START_MS + this.#time.nowMs + this.offsetMs);
  }

  for(life: Life): Clock {
    return {
      now: () => this.now(),
      monotonic: () => this.#time.nowMs,
      sleep: (ms, signal) => life.sleep(ms, signal),
    };
  }
}

function before(a: Event, b: Event): boolean {
  return a.dueMs < b.dueMs || (a.dueMs === b.dueMs && a.order < b.order);
}

function push(heap: Event[], event: Event): void {
  let index = heap.length;
  heap.push(event);
  while (index > 0) {
    const parent = (index - 1) >> 1;
    const above = heap[parent] as Event;
    if (!before(event, above)) break;
    heap[index] = above;
    index = parent;
  }
  heap[index] = event;
}

function pop(heap: Event[]): void {
  const last = heap.pop() as Event;
  if (heap.length === 0) return;
  let index = 0;
  for (;;) {
    let child = index * 2 + 1;
    if (child >= heap.length) break;
    if (child + 1 < heap.length && before(heap[child + 1] as Event, heap[child] as Event)) child++;
    if (!before(heap[child] as Event, last)) break;
    heap[index] = heap[child] as Event;
    index = child;
  }
  heap[index] = last;
}
