/**
 * Who may use what all machines share (the way to the vault, the threads that seal) next, when more of them want it than there are places.
 *
 * Three quarters of it, by bytes, go to the machine that is furthest behind: whose oldest barrier that is not in the vault is the
 * oldest of all. One quarter goes to whoever had the least of it lately, so that nobody starves: a machine whose changes exceed the
 * link does not take the others' RPO along, and an initial replication, which has no barrier to be late with, gets on beside barriers
 * that never end. While no barrier waits, all goes to whoever had the least.
 */
export interface TurnRequest {
  machineId: string;
  bytes: number;
  /** Time of the machine's oldest barrier that is not in the vault; undefined while it has none. Asked at every choice. */
  oldestBarrierMs: () => number | undefined;
  signal: AbortSignal;
  /**
   * Asked when the turn ends well: what the machine has ready behind it, and its oldest barrier then. Without that, it would not be there
   * when the next turn is given, and the one furthest behind would always have to wait for one of the others.
   */
  followedBy?: () => { bytes: number; oldestBarrierMs: number | undefined } | undefined;
}

/** Bytes for the one furthest behind for each byte for the one that had the least. */
const FURTHEST_SHARE = 3;
/** More than what the longest segment takes; what is owed to others does not grow for ever. */
const LEAD_MAX = 256 << 20;

interface Waiting {
  request: TurnRequest;
  begin: () => void;
}

export class Turns {
  readonly #places: () => number;
  /** In order of arrival. */
  readonly #waiting = new Set<Waiting>();
  /** Of machines that will come as soon as they have noted that the turn before went well. */
  readonly #announced = new Map<string, Waiting | 'given'>();
  #taken = 0;
  /** Bytes given to those furthest behind, less FURTHEST_SHARE times those given to others. */
  #lead = 0;
  /** Start-time fair queueing: what each machine had, as a time that goes on with what is given; of those that had something lately. */
  readonly #had = new Map<string, number>();
  #virtual = 0;

  /** `places`: how many turns at once, now. */
  constructor(options: { places: () => number }) {
    this.#places = options.places;
  }

  /** Acts when it is the machine's turn. Rejects with the signal's reason when that aborts before. */
  async run<T>(request: TurnRequest, act: () => Promise<T>): Promise<T> {
    await this.#turn(request);
    try {
      const result = await act();
      this.#announce(request);
      return result;
    } finally {
      this.#taken -= 1;
      this.#giveTurns();
    }
  }

  /** The machine does not come any more, whatever it announced. */
  leave(machineId: string): void {
    const announced = this.#announced.get(machineId);
    if (announced === undefined) return;
    this.#announced.delete(machineId);
    if (announced === 'given') this.#taken -= 1;
    else this.#waiting.delete(announced);
    this.#giveTurns();
  }

  #announce(request: TurnRequest): void {
    const next = request.followedBy?.();
    if (next === undefined) return;
    const { machineId } = request;
    const waiting: Waiting = {
      request: { ...request, bytes: next.bytes, oldestBarrierMs: () => next.oldestBarrierMs },
      begin: () => this.#announced.set(machineId, 'given'),
    };
    this.#announced.set(machineId, waiting);
    this.#waiting.add(waiting);
  }

  async #turn(request: TurnRequest): Promise<void> {
    const { signal, machineId } = request;
    signal.throwIfAborted();
    const announced = this.#announced.get(machineId);
    this.#announced.delete(machineId);
    if (announced === 'given') return;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    // One that was announced keeps its place among those that wait.
    const waiting = announced ?? { request, begin: resolve };
    Object.assign(waiting, { request, begin: resolve });
    const abort = () => {
      // With a turn given already, it goes on and is given back.
      if (this.#waiting.delete(waiting)) reject(signal.reason);
    };
    signal.addEventListener('abort', abort, { once: true });
    this.#waiting.add(waiting);
    this.#giveTurns();
    try {
      await promise;
    } finally {
      signal.removeEventListener('abort', abort);
    }
  }

  #giveTurns(): void {
    while (this.#waiting.size > 0 && this.#taken < this.#places()) {
      const next = this.#next();
      this.#waiting.delete(next);
      this.#taken += 1;
      this.#note(next.request);
      next.begin();
    }
    // What was had before a time in which everybody got what he wanted is forgotten.
    if (this.#taken > 0) return;
    this.#had.clear();
    this.#lead = 0;
  }

  #next(): Waiting {
    const [only] = this.#waiting;
    if (this.#waiting.size === 1 && only !== undefined) return only;
    const furthest = least(this.#waiting, ({ request }) => request.oldestBarrierMs());
    const neediest = least(this.#waiting, ({ request }) => this.#startOf(request)) as Waiting;
    if (furthest === undefined) return neediest;
    const due = FURTHEST_SHARE * Math.max(1, neediest.request.bytes);
    if (this.#lead >= due) {
      this.#lead -= due;
      return neediest;
    }
    this.#lead = Math.min(LEAD_MAX, this.#lead + Math.max(1, furthest.request.bytes));
    return furthest;
  }

  #startOf({ machineId }: TurnRequest): number {
    return Math.max(this.#virtual, this.#had.get(machineId) ?? 0);
  }

  #note(request: TurnRequest): void {
    const start = this.#startOf(request);
    this.#had.set(request.machineId, start + request.bytes);
    this.#virtual = Math.max(this.#virtual, start);
  }
}

/** The first of those with the smallest value; those without one do not count. */
function least(
  all: Iterable<Waiting>,
  value: (waiting: Waiting) => number | undefined,
): Waiting | undefined {
  let found: { waiting: Waiting; value: number } | undefined;
  for (const waiting of all) {
    const is = value(waiting);
    if (is !== undefined && (found === undefined || is < found.value))
      found = { waiting, value: is };
  }
  return found?.waiting;
}
