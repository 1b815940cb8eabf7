/**
 * The storage account that holds the vault, as its clients reach it.
 *
 * Fault model. Every call takes time. It may fail with VaultUnreachable or StoreThrottled before it took effect; after it did, its answer
 * lost; or it is given up and lands later, up to two minutes, if its conditions (If-None-Match, ETag, lease, sequence number) still hold
 * then. A host may be cut off from the account. A process that dies leaves its requests under way: they land or not. Each call itself is
 * atomic, and a read sees every write that was answered before: that is what the service promises.
 */
import type { ObjectStore, PageBlobStore } from '../../platform/ports.ts';
import { StoreError } from '../../platform/storeErrors.ts';
import { MemoryObjectStore } from '../fakes/memoryObjectStore.ts';
import { MemoryPageBlobStore } from '../fakes/memoryPageBlobStore.ts';
import type { Chance } from './chance.ts';
import { forever, type Life } from './life.ts';
import type { HostClock, SimTime } from './time.ts';

/** Who sees what takes effect in the account, when it does. */
export interface VaultWatch {
  /** Somebody tries to put it, if nothing is there. */
  objectTried(key: string, body: Uint8Array, by: string): void;
  objectPut(key: string, body: Uint8Array): void;
  objectRemoved(key: string): void;
  snapshotRemoved(key: string, snapshot: string): void;
}

const READS = new Set(['get', 'head', 'list', 'serverTime', 'info', 'read', 'ranges', 'snapshots']);
const GIVEN_UP_AFTER_MS = 4_000;
const LANDS_WITHIN_MS = [500, 5_000, 30_000, 120_000];

/** Waits for the nth request of a host that looks like this, or for its effect. */
export interface Ambush {
  host: string;
  /** Of its operation and key, such as `head journal/…`. */
  what: RegExp;
  when: 'asked' | 'done';
  calls: number;
  sprung: () => void;
}

/** The nth request of a host that looks like this is given up, and takes effect later. */
export interface Delay {
  host: string;
  what: RegExp;
  calls: number;
  landsMs: number;
}

export class SimVault {
  readonly objects: MemoryObjectStore;
  readonly pages: MemoryPageBlobStore;
  readonly #time: SimTime;
  readonly #chance: Chance;
  /** Chance for each call to fail in some way. */
  faultRate = 0;
  /** Nobody reaches it. */
  down = false;
  latencyMs = 5;
  readonly #cutOff = new Set<string>();
  #trap: { life: Life; calls: number } | undefined;
  #ambush: Ambush | undefined;
  #delay: Delay | undefined;
  readonly #counted: (kind: string) => void;
  watch: VaultWatch | undefined;

  constructor(options: {
    time: SimTime;
    chance: Chance;
    clock: HostClock;
    counted: (kind: string) => void;
  }) {
    this.#time = options.time;
    this.#chance = options.chance;
    this.#counted = options.counted;
    const clock = {
      now: () => options.clock.now(),
      monotonic: () => options.time.nowMs,
      sleep: () => forever(),
    };
    this.objects = new MemoryObjectStore({ clock });
    this.pages = new MemoryPageBlobStore({ clock });
  }

  /** Kills the process as it makes its nth call that changes something, which may still land. */
  setTrap(trap: { life: Life; calls: number }): void {
    this.#trap = trap;
  }

  layAmbush(ambush: Ambush): void {
    this.#ambush = ambush;
  }

  delayNext(delay: Delay): void {
    this.#delay = delay;
  }

  clearTrap(): void {
    this.#delay = undefined;
    this.#trap = undefined;
    this.#ambush = undefined;
  }

  cutOff(host: string): void {
    this.#cutOff.add(host);
  }

  heal(host: string): void {
    this.#cutOff.delete(host);
  }

  objectsFor(life: Life, host: string): ObjectStore {
    const { objects } = this;
    const call = <T>(what: string, act: () => Promise<T>, signal?: AbortSignal) =>
      this.#call(life, host, { what, signal }, act);
    const list = async function* (this: SimVault, ...args: Parameters<ObjectStore['list']>) {
      yield* await call(`list ${args[0]}`, () => gather(objects.list(...args)));
    };
    return {
      get: (key, options) =>
        call(`get ${key}`, () => objects.get(key, withoutSignal(options)), options?.signal),
      head: (key) => call(`head ${key}`, () => objects.head(key)),
      putIfAbsent: async (key, body, options) => {
        // The body is read by the client: what it could not read is never sent.
        const bytes = body instanceof Uint8Array ? new Uint8Array(body) : await whole(body);
        if (!life.dead) this.watch?.objectTried(key, bytes, host);
        return await call(
          `putIfAbsent ${key}`,
          async () => {
            const outcome = await objects.putIfAbsent(key, bytes);
            if (outcome.outcome === 'created') this.watch?.objectPut(key, bytes);
            return outcome;
          },
          options?.signal,
        );
      },
      replace: (key, body, condition) =>
        call(`replace ${key}`, async () => {
          const outcome = await objects.replace(key, body, condition);
          if (outcome.outcome === 'replaced') this.watch?.objectPut(key, body);
          return outcome;
        }),
      put: (key, body) =>
        call(`put ${key}`, async () => {
          const outcome = await objects.put(key, body);
          this.watch?.objectPut(key, body);
          return outcome;
        }),
      list: list.bind(this),
      remove: (key, condition) =>
        call(`remove ${key}`, async () => {
          const outcome = await objects.remove(key, condition);
          if (outcome === 'removed') this.watch?.objectRemoved(key);
          return outcome;
        }),
      serverTime: () => call('serverTime', () => objects.serverTime()),
    };
  }

  pagesFor(life: Life, host: string): PageBlobStore {
    const { pages } = this;
    const call = <T>(what: string, act: () => Promise<T>) =>
      this.#call(life, host, { what, signal: undefined }, act);
    const ranges = async function* (...args: Parameters<PageBlobStore['ranges']>) {
      yield* await call(`ranges ${args[0]}`, () => gather(pages.ranges(...args)));
    };
    const snapshots = async function* (key: string) {
      yield* await call(`snapshots ${key}`, () => gather(pages.snapshots(key)));
    };
    return {
      create: (key, options) => call(`create ${key}`, () => pages.create(key, options)),
      info: (key, options) => call(`info ${key}`, () => pages.info(key, options)),
      resize: (key, size, fence) => call(`resize ${key}`, () => pages.resize(key, size, fence)),
      fence: (key, options) => call(`fence ${key}`, () => pages.fence(key, options)),
      renew: (key, fence) => call(`renew ${key}`, () => pages.renew(key, fence)),
      release: (key, fence) => call(`release ${key}`, () => pages.release(key, fence)),
      write: (key, bytes, offset, fence) => {
        const copy = new Uint8Array(bytes);
        return call(`write ${key}`, () => pages.write(key, copy, offset, fence));
      },
      clear: (key, range, fence) => call(`clear ${key}`, () => pages.clear(key, range, fence)),
      read: (key, range, options) => call(`read ${key}`, () => pages.read(key, range, options)),
      ranges,
      snapshot: (key, options) => call(`snapshot ${key}`, () => pages.snapshot(key, options)),
      snapshots,
      removeSnapshot: (key, snapshot) =>
        call(`removeSnapshot ${key}`, async () => {
          this.watch?.snapshotRemoved(key, snapshot);
          await pages.removeSnapshot(key, snapshot);
        }),
      startCopy: (names) => call(`startCopy ${names.to}`, () => pages.startCopy(names)),
      copyState: (key) => call(`copyState ${key}`, () => pages.copyState(key)),
      remove: (key) => call(`removeBlob ${key}`, () => pages.remove(key)),
      url: (key) => pages.url(key),
    };
  }

  /** One request. What its process hears of it, and what becomes of it in the account, are two things. */
  #call<T>(
    life: Life,
    host: string,
    request: { what: string; signal: AbortSignal | undefined },
    act: () => Promise<T>,
  ): Promise<T> {
    const { what, signal } = request;
    if (life.dead) return forever();
    if (signal?.aborted) return Promise.reject(signal.reason);
    this.#time.note(`${life.name} ${what}`);
    this.#springTrap(life, what);
    this.#walkInto(host, what, 'asked');
    return new Promise<T>((resolve, reject) => {
      // An abort ends the waiting; the request is on its way.
      const aborted = () => reject(signal?.reason);
      signal?.addEventListener('abort', aborted, { once: true });
      const answer = (settle: () => void) =>
        life.deliver(() => {
          signal?.removeEventListener('abort', aborted);
          settle();
        });
      this.#travel(life, host, what, { act, resolve, reject, answer });
    });
  }

  #springTrap(life: Life, what: string): void {
    const trap = this.#trap;
    if (trap?.life !== life || READS.has(what.split(' ')[0] ?? '')) return;
    trap.calls -= 1;
    if (trap.calls > 0) return;
    this.#trap = undefined;
    life.kill();
  }

  #delayed(host: string, what: string): number | undefined {
    const delay = this.#delay;
    if (delay?.host !== host || !delay.what.test(what)) return undefined;
    delay.calls -= 1;
    if (delay.calls > 0) return undefined;
    this.#delay = undefined;
    return delay.landsMs;
  }

  #walkInto(host: string, what: string, when: Ambush['when']): void {
    const ambush = this.#ambush;
    if (ambush?.host !== host || ambush.when !== when || !ambush.what.test(what)) return;
    ambush.calls -= 1;
    if (ambush.calls > 0) return;
    this.#ambush = undefined;
    this.#time.after(0, 'ambush', ambush.sprung);
  }

  #travel<T>(
    life: Life,
    host: string,
    what: string,
    call: {
      act: () => Promise<T>;
      resolve: (value: T) => void;
      reject: (error: unknown) => void;
      answer: (settle: () => void) => void;
    },
  ): void {
    const { act, resolve, reject, answer } = call;
    const chance = this.#chance;
    const later = (ms: number, run: () => void) => this.#time.after(ms, what, run);
    const fail = (ms: number) =>
      later(ms, () => answer(() => reject(this.#unanswered(what, chance.chance(0.2)))));
    if (this.down || this.#cutOff.has(host)) {
      this.#counted('unreachable');
      fail(GIVEN_UP_AFTER_MS * chance.between(0.2, 1.5));
      return;
    }
    const landsMs = this.#delayed(host, what);
    if (landsMs !== undefined) {
      this.#counted('request late');
      later(landsMs, () => void act().catch(() => undefined));
      fail(GIVEN_UP_AFTER_MS * chance.between(0.2, 1));
      return;
    }
    const kind = chance.chance(this.faultRate)
      ? READS.has(what.split(' ')[0] ?? '')
        ? 'before'
        : chance.pick(['before', 'after', 'after', 'late'] as const)
      : 'none';
    if (kind !== 'none') this.#counted(`request ${kind}`);
    if (kind === 'before') {
      fail(chance.about(500));
      return;
    }
    if (kind === 'late') {
      later(
        chance.between(0, chance.pick(LANDS_WITHIN_MS)),
        () => void act().catch(() => undefined),
      );
      fail(GIVEN_UP_AFTER_MS * chance.between(0.2, 1.5));
      return;
    }
    later(chance.about(this.latencyMs), () => {
      // Of a dead process's requests some had been sent.
      if (life.dead && chance.chance(0.5)) return;
      act().then(
        (value) => {
          this.#walkInto(host, what, 'done');
          if (kind === 'after') fail(chance.about(500));
          else if (chance.chance(0.3))
            later(chance.about(this.latencyMs), () => answer(() => resolve(value)));
          else answer(() => resolve(value));
        },
        (error: unknown) => answer(() => reject(error)),
      );
    });
  }

  #unanswered(what: string, throttled: boolean): StoreError {
    return throttled
      ? new StoreError('StoreThrottled', `${what}: asked to slow down`)
      : new StoreError('VaultUnreachable', `${what}: no answer`);
  }
}

async function gather<T>(items: AsyncIterable<T>): Promise<T[]> {
  const gathered: T[] = [];
  for await (const item of items) gathered.push(item);
  return gathered;
}

async function whole(source: { open(): NodeJS.ReadableStream }): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  for await (const part of source.open()) parts.push(part as Uint8Array);
  return new Uint8Array(Buffer.concat(parts));
}

function withoutSignal(options: { offset?: number; length?: number } | undefined) {
  const { offset, length } = options ?? {};
  return {
    ...(offset === undefined ? {} : { offset }),
    ...(length === undefined ? {} : { length }),
  };
}
