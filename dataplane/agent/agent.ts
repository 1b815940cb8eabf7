/**
 * The agent as a whole: enrols once, then keeps a session with a process server for ever, over all endpoints that it knows.
 */
import { errorCode, errorMessage, FarshoreError } from '../../platform/errors.ts';
import type { Channel, Clock, Logger, Random, SourceMachine } from '../../platform/ports.ts';
import { Connection, framesFrom } from '../wire/connection.ts';
import type { Endpoints } from './endpoints.ts';
import { EnrolmentRefusedError, enrol } from './enrolment.ts';
import type { AgentIdentity, IdentityStore } from './identity.ts';
import type { Replication } from './replication.ts';
import { greet, Session } from './session.ts';

const BACKOFF_FIRST_MS = 1_000;
/** Of enrolment, which costs the process server work. */
const ENROLMENT_BACKOFF_MAX_MS = 60_000;
/** Of sessions: a machine that another process server has taken over is not protected before its agent asks again. */
const SESSION_BACKOFF_MAX_MS = 15_000;
/** Followed without a pause. */
const REDIRECTS_MAX = 4;
/** A session that lasted so long was a good one: the next failure starts the backoff anew. */
const GOOD_SESSION_MS = 60_000;

export interface AgentDeps {
  /** Connects to `host:port`. With an identity, only to a process server of that vault's CA; without, to anybody. */
  connect: (endpoint: string, identity: AgentIdentity | undefined) => Promise<Channel>;
  identities: IdentityStore;
  machine: SourceMachine;
  clock: Clock;
  random: Random;
  log: Logger;
}

/** Waits between tries: longer and longer, never all machines at once. */
class Backoff {
  readonly #deps: Pick<AgentDeps, 'clock' | 'random'>;
  readonly #maxMs: number;
  #nextMs = BACKOFF_FIRST_MS;

  constructor(deps: Pick<AgentDeps, 'clock' | 'random'>, options: { maxMs: number }) {
    this.#deps = deps;
    this.#maxMs = options.maxMs;
  }

  reset(): void {
    this.#nextMs = BACKOFF_FIRST_MS;
  }

  async wait(signal: AbortSignal, atLeastMs = 0): Promise<void> {
    const [random = 0] = this.#deps.random.bytes(1);
    const jittered = this.#nextMs * (0.5 + random / 512);
    this.#nextMs = Math.min(this.#maxMs, this.#nextMs * 2);
    await this.#deps.clock.sleep(Math.max(atLeastMs, jittered), signal).catch(() => undefined);
  }
}

/**
 * The stored identity, or a new one by enrolment, tried until it succeeds. Throws EnrolmentRefusedError and EnrolmentAnswerForged,
 * which trying again does not mend.
 */
export async function establishIdentity(
  deps: AgentDeps,
  options: {
    name: string;
    endpoints: readonly string[];
    passphrase: () => Promise<string>;
    signal: AbortSignal;
  },
): Promise<AgentIdentity> {
  const stored = await deps.identities.identity();
  if (stored !== undefined) {
    if (stored.name === options.name) return stored;
    throw new FarshoreError(
      'AgentNameMismatch',
      `This machine is enrolled as ${stored.name}, but is started as ${options.name}. Correct the name, or remove the state directory to enrol anew.`,
    );
  }
  const passphrase = await options.passphrase();
  const backoff = new Backoff(deps, { maxMs: ENROLMENT_BACKOFF_MAX_MS });
  for (let attempt = 0; !options.signal.aborted; attempt += 1) {
    const endpoint = options.endpoints[attempt % options.endpoints.length] ?? '';
    try {
      return await enrol(
        { ...deps, connect: () => deps.connect(endpoint, undefined) },
        { name: options.name, passphrase },
      );
    } catch (error) {
      const final =
        (error instanceof EnrolmentRefusedError && !mayPass(error.refusal)) ||
        errorCode(error) === 'EnrolmentAnswerForged';
      if (final) throw error;
      deps.log.warn(
        { code: errorCode(error), endpoint },
        `Enrolment did not succeed and is tried again: ${errorMessage(error)}`,
      );
      await backoff.wait(options.signal);
    }
  }
  throw options.signal.reason;
}

/** Refusals about the moment, not about us. */
function mayPass(refusal: string): boolean {
  return [
    'EnrolmentRateLimited',
    'EnrolmentFailed',
    'EnrolmentUnanswered',
    'NonceExpired',
    'NotReady',
    'Overloaded',
    'ShuttingDown',
  ].includes(refusal);
}

/** What a session is held with. */
export type Conversant = Pick<Replication, 'hello' | 'serve' | 'saveCaptured'>;

/** Keeps a session until aborted. Never rejects for anything that the network or a process server does. */
export async function keepSession(
  deps: AgentDeps,
  options: {
    identity: AgentIdentity;
    endpoints: Endpoints;
    replication: Conversant;
    signal: AbortSignal;
  },
): Promise<void> {
  const { log } = deps;
  const { endpoints, signal } = options;
  const backoff = new Backoff(deps, { maxMs: SESSION_BACKOFF_MAX_MS });
  let redirects = 0;
  for (let atOnce = true; !signal.aborted; ) {
    const { endpoint, waitMs } = endpoints.next();
    if (!atOnce || waitMs > 0) await backoff.wait(signal, waitMs);
    if (signal.aborted) return;
    atOnce = false;
    try {
      const outcome = await converse(deps, { ...options, endpoint });
      if (outcome.redirect !== undefined) {
        redirects += 1;
        const isNew = await endpoints.redirected(outcome.redirect);
        atOnce = isNew && redirects <= REDIRECTS_MAX;
      }
      if (outcome.servedForMs > GOOD_SESSION_MS) backoff.reset();
      endpoints.postpone(endpoint, outcome.retryAfterMs);
    } catch (error) {
      log.warn(
        { code: errorCode(error), endpoint },
        `No session with the process server: ${errorMessage(error)}`,
      );
    }
    if (!atOnce) redirects = 0;
  }
}

interface Outcome {
  redirect?: string[];
  retryAfterMs: number;
  /** 0: it did not serve us. */
  servedForMs: number;
}

async function converse(
  deps: AgentDeps,
  options: {
    identity: AgentIdentity;
    endpoint: string;
    endpoints: Endpoints;
    replication: Conversant;
    signal: AbortSignal;
  },
): Promise<Outcome> {
  const { replication, endpoint, signal } = options;
  const { log } = deps;
  const connection = new Connection({
    channel: await deps.connect(endpoint, options.identity),
    clock: deps.clock,
    accepts: framesFrom.processServer,
  });
  const stop = () => void connection.close();
  signal.addEventListener('abort', stop, { once: true });
  try {
    if (signal.aborted) return { retryAfterMs: 0, servedForMs: 0 };
    const greeting = await greet(connection, replication.hello());
    if (greeting.outcome === 'redirect') {
      log.info(
        { endpoint, endpoints: greeting.endpoints },
        'Another process server owns this machine',
      );
      return { redirect: greeting.endpoints, retryAfterMs: 0, servedForMs: 0 };
    }
    if (greeting.outcome === 'refused') {
      const { code, message, retryAfterMs } = greeting;
      log.warn({ code, endpoint, retryAfterMs }, `The process server refused us: ${message}`);
      return { retryAfterMs, servedForMs: 0 };
    }
    const { welcome } = greeting;
    log.info({ endpoint, journaledLsn: String(welcome.journaledLsn) }, 'Connected');
    await options.endpoints.served(endpoint);
    let advertised = options.endpoints.advertised(welcome.peers ?? []);
    await advertised;
    const startedMs = deps.clock.monotonic();
    const session = new Session({
      connection,
      welcome,
      saveCaptured: (lsn) => replication.saveCaptured(lsn),
      // One after the other: they write the same file.
      peersTold: (peers) => {
        advertised = advertised.then(() => options.endpoints.advertised(peers));
      },
    });
    const end = await replication.serve(session);
    log.info({ code: end.reason, endpoint }, `Disconnected: ${end.message}`);
    const servedForMs = deps.clock.monotonic() - startedMs;
    return { retryAfterMs: end.retryAfterMs ?? 0, servedForMs };
  } finally {
    signal.removeEventListener('abort', stop);
    await connection.close();
  }
}
