/**
 * The agent as a whole: enrols once, then keeps a session with a process server for ever, over all endpoints that it knows.
 */
import { errorCode, errorMessage, FarshoreError } from '../../platform/errors.ts';
import type { Channel, Clock, Logger, Random, SourceMachine } from '../../platform/ports.ts';
import { Connection, framesFrom } from '../wire/connection.ts';
import { EnrolmentRefusedError, enrol } from './enrolment.ts';
import type { AgentIdentity, IdentityStore } from './identity.ts';
import type { Replication } from './replication.ts';
import { greet, Session } from './session.ts';

const BACKOFF_FIRST_MS = 1_000;
const BACKOFF_MAX_MS = 60_000;
const ENDPOINTS_MAX = 64;
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
  #nextMs = BACKOFF_FIRST_MS;

  constructor(deps: Pick<AgentDeps, 'clock' | 'random'>) {
    this.#deps = deps;
  }

  reset(): void {
    this.#nextMs = BACKOFF_FIRST_MS;
  }

  async wait(signal: AbortSignal, atLeastMs = 0): Promise<void> {
    const [random = 0] = this.#deps.random.bytes(1);
    const jittered = this.#nextMs * (0.5 + random / 512);
    this.#nextMs = Math.min(BACKOFF_MAX_MS, this.#nextMs * 2);
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
  const backoff = new Backoff(deps);
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

/** Keeps a session until aborted. Never rejects for anything that the network or a process server does. */
export async function keepSession(
  deps: AgentDeps,
  options: {
    identity: AgentIdentity;
    endpoints: readonly string[];
    replication: Replication;
    signal: AbortSignal;
  },
): Promise<void> {
  const { clock, log } = deps;
  const known = [...options.endpoints];
  const backoff = new Backoff(deps);
  let redirects = 0;
  for (let turn = 0; !options.signal.aborted; ) {
    const endpoint = known[turn % known.length] ?? '';
    const startedMs = clock.monotonic();
    let retryAfterMs = 0;
    try {
      const outcome = await converse(deps, { ...options, endpoint });
      if (outcome.redirect !== undefined && redirects < REDIRECTS_MAX) {
        redirects += 1;
        // Asked first from now on; the others stay known for the day when these are gone.
        for (const target of outcome.redirect.toReversed()) prefer(known, target);
        turn = 0;
        continue;
      }
      redirects = 0;
      retryAfterMs = outcome.retryAfterMs;
    } catch (error) {
      log.warn(
        { code: errorCode(error), endpoint },
        `No session with the process server: ${errorMessage(error)}`,
      );
      turn += 1;
    }
    if (clock.monotonic() - startedMs > GOOD_SESSION_MS) backoff.reset();
    await backoff.wait(options.signal, retryAfterMs);
  }
}

async function converse(
  deps: AgentDeps,
  options: {
    identity: AgentIdentity;
    endpoint: string;
    replication: Replication;
    signal: AbortSignal;
  },
): Promise<{ redirect?: string[]; retryAfterMs: number }> {
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
    if (signal.aborted) return { retryAfterMs: 0 };
    const greeting = await greet(connection, replication.hello());
    if (greeting.outcome === 'redirect') {
      log.info(
        { endpoint, endpoints: greeting.endpoints },
        'Another process server owns this machine',
      );
      return { redirect: greeting.endpoints, retryAfterMs: 0 };
    }
    if (greeting.outcome === 'refused') {
      const { code, message, retryAfterMs } = greeting;
      log.warn({ code, endpoint, retryAfterMs }, `The process server refused us: ${message}`);
      return { retryAfterMs };
    }
    const { welcome } = greeting;
    log.info({ endpoint, journaledLsn: String(welcome.journaledLsn) }, 'Connected');
    const session = new Session({
      connection,
      welcome,
      saveCaptured: (lsn) => replication.saveCaptured(lsn),
    });
    const end = await replication.serve(session);
    log.info({ code: end.reason, endpoint }, `Disconnected: ${end.message}`);
    return { retryAfterMs: end.retryAfterMs ?? 0 };
  } finally {
    signal.removeEventListener('abort', stop);
    await connection.close();
  }
}

function prefer(known: string[], endpoint: string): void {
  const at = known.indexOf(endpoint);
  if (at >= 0) known.splice(at, 1);
  known.unshift(endpoint);
  known.length = Math.min(known.length, ENDPOINTS_MAX);
}
