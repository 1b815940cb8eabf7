/**
 * Tells people what happened, as Events (`kubectl describe`). In the background and at best: an Event that can't be written is
 * logged and forgotten. The same happening again raises the count of its Event; an object that has too much to say is cut short.
 */
import { errorCode, errorMessage } from '../../platform/errors.ts';
import {
  isKubeError,
  type KubeClient,
  type KubeObject,
  kubeTypes,
} from '../../platform/kubernetes.ts';
import type { Clock, Logger, Random } from '../../platform/ports.ts';

const MAX_QUEUED = 1_000;
const MAX_REMEMBERED = 4_096;
const MAX_NOTE = 1_024;
/** A repetition within this time belongs to the same Event. */
const SERIES_MS = 10 * 60_000;
/** Each object may send so many at once, and one more after each of these times. */
const BURST = 25;
const REFILL_MS = 60_000;

export interface Happening {
  type: 'Normal' | 'Warning';
  /** CamelCase and stable, from crds/conditions.ts. */
  reason: string;
  /** What has happened, naming the object it happened to. */
  message: string;
  /** What was being done, CamelCase; the reason when absent. */
  action?: string;
}

interface Series {
  name: string;
  namespace: string;
  count: number;
  lastMs: number;
}

export class EventRecorder {
  readonly #deps: { client: KubeClient; clock: Clock; random: Random; logger: Logger };
  readonly #controller: string;
  readonly #instance: string;
  readonly #series = new Map<string, Series>();
  readonly #allowance = new Map<string, { tokens: number; filledMs: number }>();
  #queued = 0;
  #tail: Promise<void> = Promise.resolve();

  constructor(
    deps: { client: KubeClient; clock: Clock; random: Random; logger: Logger },
    options: { controller: string; instance: string },
  ) {
    this.#deps = deps;
    this.#controller = options.controller;
    this.#instance = options.instance.slice(0, 128);
  }

  /** Never throws, never waits. */
  record(object: KubeObject, happening: Happening): void {
    if (this.#queued >= MAX_QUEUED || !this.#allowed(object)) {
      this.#deps.logger.debug(
        { reason: happening.reason },
        'an Event was left out: there are too many',
      );
      return;
    }
    this.#queued += 1;
    this.#tail = this.#tail
      .then(() => this.#write(object, happening))
      .catch((error) =>
        this.#deps.logger.warn(
          { code: errorCode(error), error: errorMessage(error), reason: happening.reason },
          'an Event could not be written',
        ),
      )
      .finally(() => {
        this.#queued -= 1;
      });
  }

  /** Resolves when all that was recorded before has been written or given up. */
  async flush(): Promise<void> {
    await this.#tail;
  }

  async #write(object: KubeObject, happening: Happening): Promise<void> {
    const { client, clock } = this.#deps;
    const note = cut(happening.message);
    const id = [object.metadata.uid, happening.type, happening.reason, note].join('\n');
    const known = this.#series.get(id);
    const nowMs = clock.now();
    if (known !== undefined && Math.abs(nowMs - known.lastMs) < SERIES_MS) {
      known.count += 1;
      known.lastMs = nowMs;
      if (await this.#raise(known)) return;
    }
    const event = this.#event(object, { ...happening, message: note }, nowMs);
    await client.create(kubeTypes.event, event);
    this.#remember(id, {
      name: event.metadata.name,
      namespace: event.metadata.namespace,
      count: 1,
      lastMs: nowMs,
    });
  }

  /** False when the Event is not there any more (they live an hour). */
  async #raise(series: Series): Promise<boolean> {
    const { name, namespace, count, lastMs } = series;
    try {
      await this.#deps.client.patch(
        kubeTypes.event,
        { name, namespace },
        { merge: { series: { count, lastObservedTime: microTime(lastMs) } } },
      );
      return true;
    } catch (error) {
      if (isKubeError(error, 'NotFound')) return false;
      throw error;
    }
  }

  #event(object: KubeObject, happening: Happening, nowMs: number) {
    const { name, namespace = 'default', uid, resourceVersion } = object.metadata;
    const unique = Buffer.from(this.#deps.random.bytes(8)).toString('hex');
    return {
      apiVersion: 'events.k8s.io/v1',
      kind: 'Event',
      metadata: { name: `${name.slice(0, 200)}.${unique}`, namespace },
      eventTime: microTime(nowMs),
      type: happening.type,
      reason: happening.reason.slice(0, 128),
      action: (happening.action ?? happening.reason).slice(0, 128),
      note: happening.message,
      regarding: {
        apiVersion: object.apiVersion,
        kind: object.kind,
        name,
        namespace,
        uid,
        resourceVersion,
      },
      reportingController: this.#controller,
      reportingInstance: this.#instance,
    };
  }

  #remember(id: string, series: Series): void {
    this.#series.delete(id);
    this.#series.set(id, series);
    if (this.#series.size > MAX_REMEMBERED) dropOldest(this.#series);
  }

  #allowed(object: KubeObject): boolean {
    const uid = object.metadata.uid ?? object.metadata.name;
    const nowMs = this.#deps.clock.monotonic();
    const before = this.#allowance.get(uid) ?? { tokens: BURST, filledMs: nowMs };
    const tokens = Math.min(BURST, before.tokens + (nowMs - before.filledMs) / REFILL_MS);
    this.#allowance.delete(uid);
    this.#allowance.set(uid, {
      tokens: Math.max(0, tokens - (tokens >= 1 ? 1 : 0)),
      filledMs: nowMs,
    });
    if (this.#allowance.size > MAX_REMEMBERED) dropOldest(this.#allowance);
    return tokens >= 1;
  }
}

function dropOldest(map: Map<string, unknown>): void {
  const oldest = map.keys().next();
  if (!oldest.done) map.delete(oldest.value);
}

function cut(text: string): string {
  return text.length <= MAX_NOTE ? text : `${text.slice(0, MAX_NOTE - 1)}…`;
}

function microTime(ms: number): string {
  return new Date(ms).toISOString().replace('Z', '000Z');
}
