import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Channel } from '../../platform/ports.ts';
import { channelPair, verified } from '../../test/fakes/channel.ts';
import { ManualClock } from '../../test/fakes/manualClock.ts';
import { MemoryDisk } from '../../test/fakes/memoryDisk.ts';
import { SeededRandom } from '../../test/fakes/seededRandom.ts';
import { recordingLogger } from '../../test/fakes/silentLogger.ts';
import { Connection, framesFrom } from '../wire/connection.ts';
import { FrameType, type Message } from '../wire/messages.ts';
import { keepSession } from './agent.ts';
import { Endpoints } from './endpoints.ts';
import { IdentityStore } from './identity.ts';
import { SessionEndedError } from './session.ts';

const machineId = '0123456789abcdef0123456789abcdef';
const ENDPOINTS_FILE = 'endpoints.json';

type Answer =
  | { kind: 'dead' }
  | { kind: 'redirect'; to: string[] }
  | { kind: 'refuse'; retryAfterMs: number }
  /** A session that goes on for so long. */
  | { kind: 'serve'; forMs: number; peers?: string[]; laterPeers?: string[] };

let clock: ManualClock;
let disk: MemoryDisk;
let logger: ReturnType<typeof recordingLogger>;
/** What is found at an endpoint; nothing elsewhere. */
let answers: Map<string, Answer>;
/** Who was asked, and when. */
let asked: { endpoint: string; atMs: number }[];
let stopping: AbortController;
let running: Promise<void> | undefined;

const welcome: Message<typeof FrameType.Welcome> = {
  protocol: 1,
  writerEpoch: 1,
  cacheId: 'ca'.repeat(16),
  journaledLsn: 0n,
  uploadedLsn: 0n,
  lastBarrierLsn: 0n,
  resync: { required: false },
  creditBytes: 1 << 20,
  configuration: { disks: [{ index: 0, name: 'sda', device: '/dev/sda' }], paused: false },
};

async function connect(endpoint: string): Promise<Channel> {
  asked.push({ endpoint, atMs: clock.monotonic() });
  const answer = answers.get(endpoint) ?? { kind: 'dead' };
  if (answer.kind === 'dead') throw new Error('connection refused');
  const { a, b } = channelPair({ peerOfA: verified('ps'), peerOfB: verified('agent') });
  const connection = new Connection({ channel: b, clock, accepts: framesFrom.stranger });
  void (async () => {
    await connection.receive();
    if (answer.kind === 'redirect')
      await connection.send(FrameType.Redirect, { endpoints: answer.to });
    else if (answer.kind === 'refuse') {
      const { retryAfterMs } = answer;
      await connection.send(FrameType.Refused, { code: 'NotOwner', message: 'no', retryAfterMs });
    } else {
      await connection.send(FrameType.Welcome, { ...welcome, peers: answer.peers });
      const { laterPeers: peers } = answer;
      if (peers !== undefined)
        await connection.send(FrameType.Configure, { ...welcome.configuration, peers });
    }
  })();
  return a;
}

/** An agent with these on its command line, over the state directory of the one before. */
async function start(configured: string[], held = () => false): Promise<void> {
  stopping = new AbortController();
  const deps = { clock, random: new SeededRandom(5), log: logger };
  const endpoints = await Endpoints.open({ ...deps, disk }, { configured, held });
  running = keepSession(
    {
      ...deps,
      connect,
      identities: new IdentityStore(disk),
      machine: {
        facts: async () => ({ hostname: 'db1', kernel: 'test', bootId: 'boot' }),
        disks: async () => [],
        powerOff: async () => undefined,
        giveWay: () => undefined,
      },
    },
    {
      identity: {
        name: 'db1',
        machineId,
        privateKeyPem: '',
        certificatePem: '',
        caCertificatePem: '',
      },
      endpoints,
      replication: {
        hello: () => ({
          protocol: { min: 1, max: 1 },
          machineId,
          agentVersion: '0',
          hostname: 'db1',
          kernel: 'test',
          bootId: 'boot',
          capturedLsn: 0n,
          acknowledgedBarrierLsn: 0n,
          tracking: { state: 'Continued' },
        }),
        saveCaptured: async () => undefined,
        serve: async (session) => {
          const ignore = () => undefined;
          void session.listen({
            ...{ configure: ignore, uploaded: ignore, prepare: ignore, acknowledged: ignore },
          });
          const answer = answers.get(asked.at(-1)?.endpoint ?? '');
          const forMs = answer?.kind === 'serve' ? answer.forMs : 0;
          await clock.sleep(forMs, stopping.signal).catch(() => undefined);
          return new SessionEndedError({ reason: 'Closed', message: 'closed' });
        },
      },
      signal: stopping.signal,
    },
  );
}

async function stop(): Promise<void> {
  stopping.abort(new Error('stopped'));
  let over = false;
  const ended = running?.finally(() => {
    over = true;
  });
  for (let round = 0; !over && round < 100; round += 1) await clock.advance(100);
  await ended;
  running = undefined;
}

async function until(condition: () => boolean, limitMs = 300_000): Promise<void> {
  for (const end = clock.monotonic() + limitMs; clock.monotonic() < end; ) {
    if (condition()) return;
    await clock.advance(50);
  }
  throw new Error(`never so; asked: ${JSON.stringify(asked)}`);
}

const names = () => asked.map(({ endpoint }) => endpoint);
const waits = () => asked.slice(1).map(({ atMs }, index) => atMs - (asked[index]?.atMs ?? 0));

beforeEach(() => {
  clock = new ManualClock();
  disk = new MemoryDisk();
  logger = recordingLogger();
  answers = new Map();
  asked = [];
});

afterEach(async () => {
  if (running !== undefined) await stop();
});

describe('an agent that is sent elsewhere', () => {
  test('goes there at once, and there first from then on', async () => {
    answers.set('a:1', { kind: 'redirect', to: ['b:1'] });
    answers.set('b:1', { kind: 'serve', forMs: 5_000 });
    await start(['a:1']);
    await until(() => asked.length === 2);
    expect(clock.monotonic()).toBeLessThan(500);
    await until(() => asked.length === 4);
    expect(names()).toEqual(['a:1', 'b:1', 'b:1', 'b:1']);
  });

  test('in a circle does not run round in it, and asks the others too', async () => {
    answers.set('a:1', { kind: 'redirect', to: ['b:1'] });
    answers.set('b:1', { kind: 'redirect', to: ['a:1'] });
    answers.set('c:1', { kind: 'serve', forMs: 1e9 });
    await start(['a:1', 'b:1', 'c:1']);
    await until(() => names().includes('c:1'));
    expect(names()).toEqual(['a:1', 'b:1', 'c:1']);
  });

  test('again and again to new places pauses after a few', async () => {
    for (let hop = 0; hop < 60; hop += 1)
      answers.set(`h${hop}:1`, { kind: 'redirect', to: [`h${hop + 1}:1`] });
    await start(['h0:1']);
    await clock.advance(400);
    expect(asked.length).toBeLessThanOrEqual(6);
    await clock.advance(60_000);
    expect(asked.length).toBeLessThan(50);
  });

  test('to several places asks them in their order', async () => {
    answers.set('a:1', { kind: 'redirect', to: ['b:1', 'c', 'd:1'] });
    answers.set('d:1', { kind: 'serve', forMs: 1e9 });
    await start(['a:1']);
    await until(() => names().includes('d:1'));
    expect(names()).toEqual(['a:1', 'b:1', 'c:9443', 'd:1']);
  });

  test('still knows, after a restart and a power loss, where it was sent', async () => {
    answers.set('a:1', { kind: 'redirect', to: ['b:1'] });
    answers.set('b:1', { kind: 'serve', forMs: 1e9 });
    await start(['a:1']);
    await until(() => names().includes('b:1'));
    await clock.advance(1_000);
    await stop();
    disk.crash();
    answers.set('a:1', { kind: 'dead' });
    asked = [];
    await start(['a:1']);
    await until(() => names().includes('b:1'));
    expect(names()).toEqual(['b:1']);
  });

  test('knows, after a restart and a power loss, who takes over when the one that served it is lost', async () => {
    answers.set('a:1', { kind: 'serve', forMs: 1e9, peers: ['b:1'] });
    await start(['a:1']);
    await until(() => names().includes('a:1'));
    await clock.advance(1_000);
    await stop();
    disk.crash();
    answers.set('a:1', { kind: 'dead' });
    answers.set('b:1', { kind: 'serve', forMs: 1e9 });
    asked = [];
    await start(['a:1']);
    await until(() => names().includes('b:1'));
    expect(names()).toEqual(['a:1', 'b:1']);
  });

  test('knows it also of one that reported only after the agent had come', async () => {
    answers.set('a:1', { kind: 'serve', forMs: 5_000, laterPeers: ['b:1'] });
    answers.set('b:1', { kind: 'serve', forMs: 1e9 });
    await start(['a:1']);
    await until(() => names().includes('a:1'));
    answers.set('a:1', { kind: 'dead' });
    await until(() => names().includes('b:1'));
  });

  test('while its machine is frozen writes that down only when it is not any more', async () => {
    let held = true;
    answers.set('a:1', { kind: 'redirect', to: ['b:1'] });
    answers.set('b:1', { kind: 'serve', forMs: 5_000 });
    await start(['a:1'], () => held);
    await until(() => names().includes('b:1'));
    await clock.advance(1_000);
    expect(disk.counts.write).toBe(0);
    held = false;
    await until(() => asked.length === 3);
    await clock.advance(1_000);
    expect(await disk.list('.')).toContain(ENDPOINTS_FILE);
  });

  test('goes on with what it is given when what it wrote down is damaged', async () => {
    const file = await disk.open(ENDPOINTS_FILE, 'create');
    await file.write(new TextEncoder().encode('{"endpoints":["b:1"'), 0);
    await file.close();
    answers.set('a:1', { kind: 'serve', forMs: 1e9 });
    await start(['a:1']);
    await until(() => asked.length === 1);
    expect(names()).toEqual(['a:1']);
    expect(logger.lines.map(({ level }) => level)).toContain('warn');
  });

  test('never forgets what it was given, however many places it hears of', async () => {
    const many = Array.from({ length: 32 }, (_, index) => `x${index}:1`);
    answers.set('a:1', { kind: 'redirect', to: many });
    for (const one of many)
      answers.set(one, { kind: 'redirect', to: many.map((name) => name.replace('x', `${one}y`)) });
    await start(['a:1', 'z:1']);
    await until(() => names().filter((name) => name === 'z:1').length === 2, 36_000_000);
  });
});

describe('an agent that is not served', () => {
  test('tries the next endpoint, also after a refusal, and begins with the first again', async () => {
    answers.set('b:1', { kind: 'refuse', retryAfterMs: 1_000 });
    await start(['a:1', 'b:1', 'c:1']);
    await until(() => asked.length === 5);
    expect(names()).toEqual(['a:1', 'b:1', 'c:1', 'a:1', 'b:1']);
  });

  test('comes back first to whoever served it last', async () => {
    answers.set('b:1', { kind: 'serve', forMs: 5_000 });
    await start(['a:1', 'b:1']);
    await until(() => asked.length === 4);
    expect(names()).toEqual(['a:1', 'b:1', 'b:1', 'b:1']);
  });

  test('waits longer and longer, up to 15 s: whoever takes it over does not wait for it any longer', async () => {
    await start(['a:1']);
    await until(() => asked.length === 12, 1_000_000);
    for (const [index, waited] of waits().entries()) {
      const full = Math.min(15_000, 1_000 * 2 ** index);
      expect(waited).toBeGreaterThanOrEqual(full / 2);
      expect(waited).toBeLessThanOrEqual(full);
    }
  });

  test('waits little again after a good session, not after a short one', async () => {
    const lastWait = async (forMs: number) => {
      answers.set('a:1', { kind: 'dead' });
      await until(() => asked.length >= 8, 1_000_000);
      answers.set('a:1', { kind: 'serve', forMs });
      const before = asked.length;
      await until(() => asked.length === before + 2, 1_000_000);
      return (waits().at(-1) ?? 0) - forMs;
    };
    await start(['a:1']);
    expect(await lastWait(2_000)).toBeGreaterThan(7_000);
    asked = [];
    expect(await lastWait(120_000)).toBeLessThanOrEqual(1_000);
  });

  test('asks nobody before the time that he named, and others meanwhile', async () => {
    answers.set('a:1', { kind: 'refuse', retryAfterMs: 100_000 });
    await start(['a:1', 'b:1']);
    await until(() => names().filter((name) => name === 'a:1').length === 2, 1_000_000);
    const [first, second] = asked.filter(({ endpoint }) => endpoint === 'a:1');
    expect((second?.atMs ?? 0) - (first?.atMs ?? 0)).toBeGreaterThanOrEqual(100_000);
    expect(names().filter((name) => name === 'b:1').length).toBeGreaterThan(3);
  });
});
