/**
 * Where an agent finds process servers: what it was given, and where it was sent, the last one that served it first. The file
 * `endpoints.json` in the state directory is a memory, not a truth: an agent without it begins with what it was given.
 */
import { z } from 'zod';
import { readFile, replaceFile } from '../../platform/durableFile.ts';
import { errorMessage } from '../../platform/errors.ts';
import type { Clock, Disk, Logger } from '../../platform/ports.ts';

const DEFAULT_PORT = 9443;
const FILE = 'endpoints.json';
const FILE_MAX = 64 << 10;
/** Learned ones; those that were given always stay. */
const LEARNED_MAX = 32;
const ENDPOINT_MAX = 300;

const fileSchema = z.object({
  endpoints: z.array(z.string().min(1).max(ENDPOINT_MAX)).max(LEARNED_MAX),
});

export interface EndpointsDeps {
  /** The agent's durable state directory. */
  disk: Disk;
  clock: Clock;
  log: Logger;
}

export class Endpoints {
  readonly #deps: EndpointsDeps;
  readonly #configured: ReadonlySet<string>;
  readonly #held: () => boolean;
  /** All that are known, in the order in which they are asked. */
  #known: string[];
  /** In this round. */
  readonly #asked = new Set<string>();
  /** Monotonic moments before which somebody does not want to be asked again. */
  readonly #notBefore = new Map<string, number>();
  #saved: string;

  private constructor(
    deps: EndpointsDeps,
    options: { configured: readonly string[]; held: () => boolean; learned: readonly string[] },
  ) {
    this.#deps = deps;
    this.#configured = new Set(options.configured);
    this.#held = options.held;
    this.#known = [...new Set([...options.learned, ...options.configured])];
    this.#saved = this.#text();
  }

  /** `configured`: not empty. `held`: whether filesystems are frozen, and nothing may be written. */
  static async open(
    deps: EndpointsDeps,
    options: { configured: readonly string[]; held: () => boolean },
  ): Promise<Endpoints> {
    const configured = options.configured.map(withPort);
    return new Endpoints(deps, { ...options, configured, learned: await load(deps) });
  }

  /** Whom to ask next, and how many ms from now at the earliest. */
  next(): { endpoint: string; waitMs: number } {
    const now = this.#deps.clock.monotonic();
    const dueMs = (endpoint: string) => Math.max(now, this.#notBefore.get(endpoint) ?? now);
    let endpoint = this.#known.find((one) => !this.#asked.has(one) && dueMs(one) === now);
    if (endpoint === undefined) {
      this.#asked.clear();
      endpoint = this.#known.reduce((best, one) => (dueMs(one) < dueMs(best) ? one : best));
    }
    this.#asked.add(endpoint);
    return { endpoint, waitMs: dueMs(endpoint) - now };
  }

  /** It does not want to be asked again for so long. */
  postpone(endpoint: string, retryAfterMs: number): void {
    if (retryAfterMs <= 0) return;
    this.#notBefore.set(endpoint, this.#deps.clock.monotonic() + retryAfterMs);
  }

  /** It served us: it is asked first the next time. */
  async served(endpoint: string): Promise<void> {
    this.#asked.clear();
    this.#notBefore.delete(endpoint);
    this.#prefer([endpoint]);
    await this.#save();
  }

  /** Others that may serve us one day: asked when nobody else does. */
  async advertised(others: readonly string[]): Promise<void> {
    const named = others.map(withPort).filter((one) => one.length <= ENDPOINT_MAX);
    this.#prefer([...this.#known, ...named]);
    await this.#save();
  }

  /** We were sent to these. Resolves with whether there is one among them that was not asked yet. */
  async redirected(targets: readonly string[]): Promise<boolean> {
    const named = targets.map(withPort).filter((one) => one.length <= ENDPOINT_MAX);
    this.#prefer(named);
    await this.#save();
    return named.some((target) => !this.#asked.has(target));
  }

  #prefer(endpoints: readonly string[]): void {
    const ordered = [...new Set([...endpoints, ...this.#known])];
    const learned = ordered.filter((one) => !this.#configured.has(one));
    const dropped = new Set(learned.slice(LEARNED_MAX));
    this.#known = ordered.filter((one) => !dropped.has(one));
    for (const one of dropped) this.#notBefore.delete(one);
  }

  #text(): string {
    return `${JSON.stringify({ endpoints: this.#known.slice(0, LEARNED_MAX) })}\n`;
  }

  async #save(): Promise<void> {
    const text = this.#text();
    if (text === this.#saved || this.#held()) return;
    try {
      await replaceFile(this.#deps.disk, FILE, new TextEncoder().encode(text));
      this.#saved = text;
    } catch (error) {
      this.#deps.log.warn(
        { error },
        `Where process servers are found can't be written down: ${errorMessage(error)}`,
      );
    }
  }
}

async function load({ disk, log }: EndpointsDeps): Promise<string[]> {
  try {
    const bytes = await readFile(disk, FILE, FILE_MAX);
    if (bytes === undefined) return [];
    return fileSchema.parse(JSON.parse(new TextDecoder().decode(bytes))).endpoints;
  } catch (error) {
    log.warn({ error }, `${FILE} can't be read, and is begun anew: ${errorMessage(error)}`);
    return [];
  }
}

/** `host`, `host:port` or `[address]:port`. */
export function withPort(endpoint: string): string {
  return /:\d+$/.test(endpoint) ? endpoint : `${endpoint}:${DEFAULT_PORT}`;
}
