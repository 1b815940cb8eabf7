import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Channel } from '../../platform/ports.ts';
import { StoreError } from '../../platform/storeErrors.ts';
import { anonymous, channelPair, type FakeChannel, verified } from '../../test/fakes/channel.ts';
import { FakeJournalCache } from '../../test/fakes/fakeJournal.ts';
import { ManualClock } from '../../test/fakes/manualClock.ts';
import { MemoryDisk } from '../../test/fakes/memoryDisk.ts';
import { MemoryObjectStore } from '../../test/fakes/memoryObjectStore.ts';
import {
  type AgentMemory,
  enrolAgent,
  freshMemory,
  ScriptedAgent,
  wholeLeaf,
} from '../../test/fakes/scriptedAgent.ts';
import { ScriptedOperator } from '../../test/fakes/scriptedOperator.ts';
import { SeededRandom } from '../../test/fakes/seededRandom.ts';
import { recordingLogger } from '../../test/fakes/silentLogger.ts';
import { machineIdentity } from '../../vault/identity.ts';
import { generateSigningKey } from '../../vault/signing.ts';
import { FrameType, RefusalCode } from '../wire/messages.ts';
import { ProcessServer } from './processServer.ts';
import { establishIdentity } from './serverIdentity.ts';

let clock: ManualClock;
let store: MemoryObjectStore;
let operator: ScriptedOperator;
let random: SeededRandom;
let disk: MemoryDisk;
let cache: FakeJournalCache;
let logger: ReturnType<typeof recordingLogger>;
let stop: AbortController;
let accept: (channel: Channel) => void;
let server: ProcessServer;
let running: Promise<void>;
let machineId: string;

async function settleUntil(
  condition: () => boolean | Promise<boolean>,
  stepMs = 250,
): Promise<void> {
  for (let round = 0; round < 2_000; round += 1) {
    if (await condition()) return;
    await clock.advance(stepMs);
  }
  throw new Error('the condition never came true');
}

/** Runs something that waits for time to pass. */
async function passing<T>(work: Promise<T>): Promise<T> {
  let done = false;
  const finished = work.finally(() => {
    done = true;
  });
  finished.catch(() => undefined);
  await settleUntil(() => done);
  return await finished;
}

/** Likewise, with the operator at work. Keys are made outside of the manual clock, so real time passes too. */
async function withOperator<T>(work: Promise<T>): Promise<T> {
  let done = false;
  const finished = work.finally(() => {
    done = true;
  });
  finished.catch(() => undefined);
  while (!done) {
    await operator.answerEnrolments();
    await clock.advance(50);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  return await finished;
}

async function startServer(): Promise<void> {
  stop = new AbortController();
  const deps = { store, disk, clock, random, logger };
  const answering = establishIdentity(
    { ...deps, objects: store },
    {
      name: 'ps1',
      token: operator.token,
      signal: stop.signal,
    },
  );
  const identity = store.fault === undefined ? await withOperator(answering) : await answering;
  server = await ProcessServer.start(
    {
      ...deps,
      cache,
      listen: async ({ onChannel }) => {
        accept = onChannel;
        return { port: 9443, replaceCertificate: () => undefined, close: async () => undefined };
      },
    },
    {
      name: 'ps1',
      version: '0.0.0',
      vaultId: operator.vault.vaultId,
      pinnedKey: operator.signingKey.publicKey,
      identity,
      port: 9443,
      endpoints: ['ps1.example:9443'],
    },
  );
  running = server.run(stop.signal);
}

async function stopServer(): Promise<void> {
  stop.abort();
  await passing(running);
}

function connect(
  identity: string | undefined,
  address?: string,
): {
  channel: Channel;
  far: FakeChannel;
  near: FakeChannel;
} {
  const { a, b } = channelPair({
    peerOfA: verified('farshore:processserver:ps1'),
    peerOfB: {
      ...(identity === undefined ? anonymous : verified(identity)),
      ...(address === undefined ? {} : { address }),
    },
  });
  accept(b);
  return { channel: a, near: a, far: b };
}

function agent(
  memory: AgentMemory = freshMemory(machineId),
): ScriptedAgent & { near: FakeChannel } {
  const { channel, near } = connect(machineIdentity(memory.machineId));
  return Object.assign(new ScriptedAgent({ channel, clock, memory }), { near });
}

async function assignAndWait(...parameters: Parameters<ScriptedOperator['assign']>): Promise<void> {
  await operator.assign(...parameters);
  await clock.advance(4_000);
}

function journal() {
  const found = cache.journals.get(machineId);
  if (found === undefined) throw new Error('no journal');
  return found;
}

async function machineStatus() {
  await clock.advance(6_000);
  const status = await operator.status('ps1');
  return status?.machines.find((machine) => machine.machineId === machineId);
}

beforeEach(async () => {
  clock = new ManualClock();
  random = new SeededRandom(7);
  store = new MemoryObjectStore({ clock });
  disk = new MemoryDisk();
  cache = new FakeJournalCache();
  logger = recordingLogger();
  operator = await ScriptedOperator.create({ store, clock, random });
  machineId = operator.addMachine('db1');
  await startServer();
  await assignAndWait('ps1', [{ machineId }]);
});

afterEach(stopServer);

describe('enrolment through a process server', () => {
  const enrol = (name: string, passphrase: string) =>
    enrolAgent({ channel: connect(undefined).channel, clock, random, name, passphrase });

  test('brings the operator’s answer to an agent that knows the passphrase', async () => {
    const enrolled = await withOperator(enrol('db1', operator.passphrase));
    expect(enrolled.machineId).toBe(machineId);
    expect(enrolled.caCertificatePem).toBe(operator.vault.ca.certificatePem);
  });

  test('tells an agent with a wrong passphrase so, and says it in the log', async () => {
    await expect(withOperator(enrol('db1', 'wrong'))).rejects.toThrow('WrongPassphrase');
    expect(logger.lines.some((line) => line.fields.code === 'WrongPassphrase')).toBe(true);
  });

  test('refuses names that can be none, without troubling the vault', async () => {
    const before = store.keys().length;
    await expect(withOperator(enrol('../x', operator.passphrase))).rejects.toThrow('NameInvalid');
    expect(store.keys().length).toBe(before);
  });

  /** `nonce`, or the code of the refusal. */
  async function firstAnswer(address?: string): Promise<string> {
    const { channel } = connect(undefined, address);
    const asked = new ScriptedAgent({ channel, clock, memory: freshMemory(machineId) });
    await asked.connection.send(FrameType.EnrolBegin, { name: 'db1' });
    const answer = await asked.connection.receive();
    await asked.connection.close();
    if (answer?.type === FrameType.EnrolNonce) return 'nonce';
    if (answer?.type === FrameType.EnrolAnswer && answer.message.outcome === 'refused')
      return answer.message.code;
    throw new Error(`an answer of type ${answer?.type}`);
  }
  const answersTo = async (addresses: string[]) => {
    const outcomes = new Map<string, number>();
    for (const address of addresses) {
      const outcome = await firstAnswer(address);
      outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
    }
    return Object.fromEntries(outcomes);
  };

  test('refuses an address that asks too often, and it alone, until a while has passed', async () => {
    const [often, other] = ['198.51.100.1', '198.51.100.2'];
    expect(await answersTo(Array(40).fill(often))).toEqual({ nonce: 40 });
    const before = store.keys().length;
    expect(await answersTo(Array(20).fill(often))).toEqual({ EnrolmentRateLimited: 20 });
    expect(store.keys().length).toBe(before);
    expect(await answersTo([other])).toEqual({ nonce: 1 });
    expect(logger.lines).toContainEqual(
      expect.objectContaining({
        level: 'warn',
        fields: expect.objectContaining({ code: 'EnrolmentRateLimited', address: often }),
      }),
    );
    await clock.advance(60_000);
    expect(await answersTo(Array(21).fill(often))).toEqual({ nonce: 20, EnrolmentRateLimited: 1 });
  });

  test('refuses whoever asks when too many addresses do, and none of them for good', async () => {
    const flood = Array.from({ length: 150 }, (_, index) => `203.0.113.${index}`);
    expect(await answersTo(flood)).toEqual({ nonce: 120, EnrolmentRateLimited: 30 });
    await clock.advance(60_000);
    expect(await answersTo(flood.slice(0, 61))).toEqual({ nonce: 60, EnrolmentRateLimited: 1 });
  });

  test('says that the vault can’t be reached instead of leaving the agent waiting', async () => {
    store.fault = (operation) =>
      operation === 'putIfAbsent'
        ? { when: 'before', error: new StoreError('VaultUnreachable', 'no answer') }
        : undefined;
    await expect(withOperator(enrol('db1', operator.passphrase))).rejects.toThrow(
      'EnrolmentFailed',
    );
  });
});

describe('who may begin a session', () => {
  const refusalOf = async (answer: ReturnType<ScriptedAgent['hello']>) => {
    const received = await passing(answer);
    return received?.type === FrameType.Refused ? received.message.code : received?.type;
  };

  test('not somebody without a certificate', async () => {
    const { channel } = connect(undefined);
    const stranger = new ScriptedAgent({ channel, clock, memory: freshMemory(machineId) });
    expect(await refusalOf(stranger.hello())).toBe(RefusalCode.CertificateRequired);
  });

  test('not the holder of another machine’s certificate; the machine’s status says who tried', async () => {
    const { channel } = connect(machineIdentity('99'.repeat(16)));
    const impostor = new ScriptedAgent({ channel, clock, memory: freshMemory(machineId) });
    expect(await refusalOf(impostor.hello())).toBe(RefusalCode.CertificateOfAnotherMachine);
    expect((await machineStatus())?.errors).toMatchObject([
      { code: RefusalCode.CertificateOfAnotherMachine },
    ]);
  });

  test('not a process server’s certificate', async () => {
    const { channel } = connect('farshore:processserver:ps2');
    const impostor = new ScriptedAgent({ channel, clock, memory: freshMemory(machineId) });
    expect(await refusalOf(impostor.hello())).toBe(RefusalCode.CertificateOfAnotherMachine);
  });

  test('not a machine that is not assigned; one whose owner is known is sent there', async () => {
    const other = '77'.repeat(16);
    expect(await refusalOf(agent(freshMemory(other)).hello())).toBe(RefusalCode.NotAssigned);
    await assignAndWait('ps1', [{ machineId }], { redirects: { [other]: ['ps2.example:9443'] } });
    const sent = await passing(agent(freshMemory(other)).hello());
    expect(sent).toMatchObject({
      type: FrameType.Redirect,
      message: { endpoints: ['ps2.example:9443'] },
    });
  });

  test('not an agent that speaks another version', async () => {
    const answer = agent().hello({ protocol: { min: 2, max: 3 } });
    expect(await refusalOf(answer)).toBe(RefusalCode.VersionUnsupported);
  });
});

describe('a session', () => {
  test('takes data, barriers and tells what is uploaded', async () => {
    const db1 = agent();
    const welcome = await passing(db1.begin());
    expect(welcome).toMatchObject({
      writerEpoch: 1,
      resync: { required: true, reason: 'Initial' },
    });
    await passing(db1.resync(7));
    const { lsn, timeMs } = await passing(db1.barrier());
    expect(journal().barriers).toMatchObject([{ timeMs, consistency: 'Crash' }]);
    expect(journal().disks()).toEqual([{ index: 0, name: 'root', sizeBytes: 1 << 20 }]);
    journal().upload();
    await passing(db1.waitForUploaded(lsn));
    expect(await machineStatus()).toMatchObject({
      agent: { connected: true, hostname: 'db1' },
      disks: [{ index: 0, sizeBytes: 1 << 20 }],
      positions: { journaledLsn: lsn, uploadedLsn: lsn },
      uploadedBarrier: { lsn, timeMs },
      barriers: { count: 1, voided: 0, lastFreezeMs: 5 },
    });
  });

  test('asks for no barrier before a resync ended, nor while paused', async () => {
    const db1 = agent();
    await passing(db1.begin());
    let barriers = 0;
    const taking = (async () => {
      for (;;) {
        await db1.barrier();
        barriers += 1;
      }
    })().catch(() => undefined);
    await clock.advance(120_000);
    expect(barriers).toBe(0);
    await assignAndWait('ps1', [{ machineId, paused: true }]);
    await db1.resync(1);
    await clock.advance(60_000);
    expect(barriers).toBe(0);
    await assignAndWait('ps1', [{ machineId }]);
    await settleUntil(() => barriers === 1);
    await db1.connection.close();
    await passing(taking);
  });

  test('gives barriers times that never go back, even when the wall clock does', async () => {
    const db1 = agent();
    await passing(db1.begin());
    await passing(db1.resync(1));
    const first = await passing(db1.barrier());
    clock.jumpWallClock(-3_600_000);
    const second = await passing(db1.barrier());
    expect(second.timeMs).toBeGreaterThan(first.timeMs);
  });

  test('counts a voided barrier and asks again', async () => {
    const db1 = agent();
    await passing(db1.begin());
    await passing(db1.resync(1));
    const { message: prepare } = await passing(db1.waitFor(FrameType.BarrierPrepare));
    await db1.connection.send(FrameType.BarrierVoided, {
      id: prepare.id,
      code: 'FreezeTimeout',
      message: 'too much dirt',
    });
    await passing(db1.barrier());
    expect((await machineStatus())?.barriers).toMatchObject({
      count: 1,
      voided: 1,
      lastVoid: 'FreezeTimeout: too much dirt',
    });
  });

  test('stops taking data while the cache is full, and goes on when there is room', async () => {
    const db1 = agent();
    await passing(db1.begin());
    let free: () => void = () => undefined;
    journal().full = new Promise((resolve) => {
      free = resolve;
    });
    let sent = 0;
    const sending = (async () => {
      for (let leaf = 0; leaf < 300; leaf += 1) {
        await db1.sendRecords([wholeLeaf(leaf % 16, 3)]);
        sent += 1;
      }
    })();
    await clock.advance(5_000);
    expect(sent).toBeLessThan(130);
    expect((await machineStatus())?.errors).toMatchObject([{ code: 'CacheFull' }]);
    journal().full = undefined;
    free();
    await passing(sending);
    expect(sent).toBe(300);
  });

  test('ends a session that sends more than it was given credit for', async () => {
    const db1 = agent();
    await passing(db1.begin());
    let free: () => void = () => undefined;
    journal().full = new Promise((resolve) => {
      free = resolve;
    });
    const records = Array.from({ length: 60 }, () => wholeLeaf(0, 9));
    const flood = (async () => {
      for (let round = 0n; round < 10n; round += 1n)
        await db1.connection.sendData({ firstLsn: 1n + round * 60n, count: 60, records });
    })();
    flood.catch(() => undefined);
    const { message } = await passing(db1.waitFor(FrameType.Refused));
    expect(message).toMatchObject({ code: RefusalCode.ProtocolBroken });
    expect(message.message).toContain('CreditExceeded');
    free();
  });

  test.each([
    [
      'flipped',
      'FrameDamaged',
      (bytes: Uint8Array) => bytes.map((byte, at) => (at === 40 ? byte ^ 4 : byte)),
    ],
    ['too long', 'FrameTooLong', (bytes: Uint8Array) => bytes.fill(0xff, 0, 4)],
    ['of an unknown type', 'FrameUnknown', (bytes: Uint8Array) => bytes.fill(99, 4, 5)],
  ])(
    'ends with a clear error at a frame that is %s, and loses nothing',
    async (_, code, tamper) => {
      const db1 = agent();
      await passing(db1.begin());
      await passing(db1.resync(5));
      await passing(db1.barrier());
      const before = journal().positions();
      db1.near.tamper = tamper;
      await db1.sendRecords([wholeLeaf(1, 6)]);
      const { message } = await passing(db1.waitFor(FrameType.Refused));
      expect(message).toMatchObject({ code: RefusalCode.ProtocolBroken });
      expect(message.message).toContain(code);
      expect((await machineStatus())?.errors).toMatchObject([{ code: RefusalCode.ProtocolBroken }]);
      expect(journal().positions()).toEqual(before);
      db1.memory.cacheId = cache.cacheId;
      const again = agent(db1.memory);
      const welcome = await passing(again.begin());
      expect(welcome).toMatchObject({
        journaledLsn: before.journaledLsn,
        resync: { required: false },
      });
      await again.sendRecords([wholeLeaf(1, 6)]);
      await passing(again.barrier());
      expect((await machineStatus())?.errors).toEqual([]);
    },
  );

  test('ends when records are refused by the journal, and says why', async () => {
    const db1 = agent();
    await passing(db1.begin());
    await db1.connection.sendData({ firstLsn: 9n, count: 1, records: [wholeLeaf(0, 1)] });
    const { message } = await passing(db1.waitFor(FrameType.Refused));
    expect(message).toMatchObject({ code: RefusalCode.DataInvalid });
    expect(message.message).toContain('LsnGap');
  });

  test('gives way to a newer connection only after what it sent is journaled', async () => {
    const first = agent();
    await passing(first.begin());
    let free: () => void = () => undefined;
    journal().full = new Promise((resolve) => {
      free = resolve;
    });
    await first.sendRecords([wholeLeaf(0, 1)]);
    const memory = { ...first.memory };
    const second = agent(memory);
    let welcomed = false;
    const begun = second.begin().then((welcome) => {
      welcomed = true;
      return welcome;
    });
    await clock.advance(40_000);
    expect(welcomed).toBe(false);
    journal().full = undefined;
    free();
    expect(await passing(begun)).toMatchObject({ journaledLsn: 1n });
    expect((await passing(first.waitFor(FrameType.Refused))).message.code).toBe(
      RefusalCode.Superseded,
    );
  });

  test('demands a resync of a machine that went back in time', async () => {
    const db1 = agent();
    await passing(db1.begin());
    await passing(db1.resync(1));
    db1.memory.cacheId = cache.cacheId;
    await passing(db1.barrier());
    const snapshot = { ...db1.memory };
    await passing(db1.barrier());
    await db1.connection.close();
    const welcome = await passing(agent(snapshot).begin());
    expect(welcome.resync).toEqual({ required: true, reason: 'SourceReverted' });
  });

  test('takes a lost acknowledgement for no revert', async () => {
    const db1 = agent();
    await passing(db1.begin());
    await passing(db1.resync(1));
    db1.memory.cacheId = cache.cacheId;
    const { lsn } = await passing(db1.barrier());
    await passing(db1.barrier());
    await db1.connection.close();
    db1.memory.acknowledgedBarrierLsn = lsn;
    expect((await passing(agent(db1.memory).begin())).resync.required).toBe(false);
  });

  test('ends after 30 s of silence, and the status says when the agent was last seen', async () => {
    const db1 = agent();
    await passing(db1.begin());
    const seen = clock.now();
    await clock.advance(40_000);
    const status = await machineStatus();
    expect(status?.agent.connected).toBe(false);
    expect(Math.abs((status?.agent.lastSeenMs ?? 0) - seen)).toBeLessThan(5_000);
  });
});

describe('assignments', () => {
  test('that change are told to the agent', async () => {
    const db1 = agent();
    await passing(db1.begin());
    await assignAndWait('ps1', [{ machineId, paused: true, resyncToken: 'again' }]);
    const { message } = await passing(db1.waitFor(FrameType.Configure));
    expect(message).toMatchObject({ paused: true, resyncToken: 'again' });
  });

  test('whose resync window is closed hold resyncs back until it opens, and say so', async () => {
    const timeOfDay = (ms: number) => new Date(ms).toISOString().slice(11, 16);
    const opensMs = Math.ceil(clock.now() / 60_000) * 60_000 + 1_800_000;
    const resyncWindow = {
      from: timeOfDay(opensMs),
      to: timeOfDay(opensMs + 3_600_000),
      timeZone: 'UTC',
      urgent: ['AfterReboot' as const],
    };
    const policy = { crashConsistentSeconds: 60, appConsistentSeconds: 0, resyncWindow };
    const repair = [{ disk: 0, leaf: 7 }];
    await assignAndWait('ps1', [{ machineId, policy, repair }]);
    const db1 = agent();
    const { configuration } = await passing(db1.begin());
    const resyncWaits = ['TrackingLost', 'SourceReverted', 'DiskResized', 'VaultGap'];
    expect(configuration).toMatchObject({ resyncWaits, repair });
    await passing(db1.resync(1));
    await journal().requireResync('DiskResized');
    expect((await machineStatus())?.resyncRequired).toEqual({
      reason: 'DiskResized',
      waitsUntilMs: opensMs,
    });
    while (clock.now() < opensMs) {
      await db1.reportStatus();
      await clock.advance(10_000);
    }
    const { message } = await passing(db1.waitFor(FrameType.Configure));
    expect(message.resyncWaits).toBeUndefined();
    expect((await machineStatus())?.resyncRequired).toEqual({ reason: 'DiskResized' });
  });

  test('that name others who would take over are told to an agent that is connected already', async () => {
    const db1 = agent();
    expect((await passing(db1.begin())).peers).toEqual([]);
    await assignAndWait('ps1', [{ machineId }], { peers: ['two.example:9443'] });
    const { message } = await passing(db1.waitFor(FrameType.Configure));
    expect(message).toMatchObject({ paused: false, peers: ['two.example:9443'] });
  });

  test('that are older, forged or for another are refused and named; the last good ones stay', async () => {
    await assignAndWait('ps1', [{ machineId }], { generation: 9 });
    for (const [changes, code] of [
      [{ generation: 4 }, 'DocumentStale'],
      [{ generation: 20, signer: generateSigningKey(random) }, 'SignerNotTrusted'],
      [{ generation: 21, vaultId: 'cd'.repeat(16) }, 'AssignmentsMisdirected'],
    ] as const) {
      await assignAndWait('ps1', [], changes);
      await clock.advance(6_000);
      const status = await operator.status('ps1');
      expect(status?.errors).toMatchObject([{ code }]);
      expect(status?.assignments?.generation).toBe(9);
      expect(status?.machines.length).toBe(1);
    }
    await assignAndWait('ps1', [{ machineId }], { generation: 22 });
    await clock.advance(6_000);
    expect((await operator.status('ps1'))?.errors).toEqual([]);
  });

  test('are followed after a restart although the vault is dead', async () => {
    await stopServer();
    store.fault = () => ({ when: 'before', error: new StoreError('VaultUnreachable', 'dead') });
    await startServer();
    const db1 = agent();
    await passing(db1.begin());
    await passing(db1.resync(2));
    await passing(db1.barrier());
    store.fault = undefined;
  });

  test('that drop a machine end its session and forget it', async () => {
    const db1 = agent();
    await passing(db1.begin());
    await assignAndWait('ps1', []);
    await passing(db1.waitFor(FrameType.Refused));
    expect(cache.machines()).toEqual([]);
  });
});

describe('fencing', () => {
  test('sends the agent away, is told in the status, and ends with a higher writer epoch', async () => {
    const db1 = agent();
    await passing(db1.begin());
    await passing(db1.resync(1));
    journal().fence({ by: 'Seal', failover: 'move-db1' });
    expect((await passing(db1.waitFor(FrameType.Refused))).message.code).toBe(RefusalCode.Sealed);
    expect((await machineStatus())?.fenced).toEqual({ by: 'Seal', failover: 'move-db1' });
    const refused = await passing(agent(db1.memory).hello());
    expect(refused).toMatchObject({ message: { code: RefusalCode.Sealed } });
    await assignAndWait('ps1', [{ machineId, paused: true }]);
    expect((await machineStatus())?.fenced).toBeDefined();
    await assignAndWait('ps1', [{ machineId, writerEpoch: 2 }]);
    const welcome = await passing(agent(db1.memory).begin());
    expect(welcome.writerEpoch).toBe(2);
    expect((await machineStatus())?.fenced).toBeUndefined();
  });
});

describe('a machine that lost its process server’s cache and then went back in time', () => {
  test('must be resynced, also when the new cache has data of it and no barrier yet', async () => {
    const db1 = agent();
    await passing(db1.begin());
    await passing(db1.resync(1));
    await db1.connection.close();
    // Of before the loss: it knows of as many records, but of none that this cache has.
    const before = { ...db1.memory, cacheId: 'ab'.repeat(16), capturedLsn: 1_000n };
    const welcome = await passing(agent(before).begin());
    expect(welcome.resync).toEqual({ required: true, reason: 'SourceReverted' });
  });

  test('goes on when the new cache never had anything of it', async () => {
    const db1 = agent();
    await passing(db1.begin());
    await passing(db1.resync(1));
    await passing(db1.barrier());
    journal().upload();
    await db1.connection.close();
    await stopServer();
    const kept = journal();
    cache = new FakeJournalCache('cb'.repeat(16));
    cache.journals.set(machineId, kept);
    await startServer();
    await clock.advance(4_000);
    const welcome = await passing(agent({ ...db1.memory, cacheId: 'ca'.repeat(16) }).begin());
    expect(welcome.resync).toEqual({ required: false });
  });
});

describe('a planned failover', () => {
  const finalSync = { failover: 'move-db1', powerOff: true };

  test('gets its final barrier at once, reported when it is uploaded and the agent is done', async () => {
    const db1 = agent();
    await passing(db1.begin());
    await passing(db1.resync(1));
    await passing(db1.barrier());
    await assignAndWait('ps1', [{ machineId, finalSync }]);
    const { lsn, prepare } = await passing(db1.barrier());
    expect(prepare.final).toEqual(finalSync);
    expect(journal().barriers.at(-1)?.final).toEqual({ failover: 'move-db1' });
    expect((await machineStatus())?.finalBarrier).toBeUndefined();
    journal().upload();
    await passing(db1.waitForUploaded(lsn));
    await db1.reportStatus({ final: { failover: 'move-db1', poweredOff: true } });
    await db1.connection.close();
    const expected = { failover: 'move-db1', lsn, poweredOff: true };
    expect((await machineStatus())?.finalBarrier).toEqual(expected);
    await stopServer();
    await startServer();
    expect((await machineStatus())?.finalBarrier).toEqual(expected);
  });

  test('is over also when the process server forgot that it took the barrier', async () => {
    const db1 = agent();
    await passing(db1.begin());
    await passing(db1.resync(1));
    const { lsn } = await passing(db1.barrier());
    journal().upload();
    await db1.connection.close();
    await assignAndWait('ps1', [{ machineId, finalSync }]);
    const again = agent({ ...db1.memory, cacheId: cache.cacheId });
    await passing(again.begin());
    await again.reportStatus({ final: { failover: 'move-db1', poweredOff: false } });
    expect((await machineStatus())?.finalBarrier).toEqual({
      failover: 'move-db1',
      lsn,
      poweredOff: false,
    });
  });

  test('is followed by no other barrier, and by barriers again once it is cancelled', async () => {
    const db1 = agent();
    await passing(db1.begin());
    await passing(db1.resync(1));
    await passing(db1.barrier());
    await assignAndWait('ps1', [{ machineId, finalSync }]);
    await passing(db1.barrier());
    let asked = false;
    const next = db1.barrier().finally(() => {
      asked = true;
    });
    await clock.advance(120_000);
    expect(asked).toBe(false);
    await assignAndWait('ps1', [{ machineId }]);
    expect((await passing(next)).prepare.final).toBeUndefined();
  });

  test('asks again when the source was thawed after its final barrier was acknowledged', async () => {
    const db1 = agent();
    await passing(db1.begin());
    await passing(db1.resync(1));
    await passing(db1.barrier());
    await assignAndWait('ps1', [{ machineId, finalSync }]);
    const { prepare } = await passing(db1.barrier());
    await db1.connection.send(FrameType.BarrierVoided, {
      id: prepare.id,
      code: 'FinalTimedOut',
      message: 'not in the vault in time',
    });
    journal().upload();
    expect((await machineStatus())?.finalBarrier).toBeUndefined();
    const { lsn, prepare: second } = await passing(db1.barrier());
    expect(second.final).toEqual(finalSync);
    journal().upload();
    await passing(db1.waitForUploaded(lsn));
    await db1.reportStatus({ final: { failover: 'move-db1', poweredOff: true } });
    expect((await machineStatus())?.finalBarrier).toMatchObject({ lsn });
  });

  test('asks again when the connection ended before the source said that it stays frozen', async () => {
    const db1 = agent();
    await passing(db1.begin());
    await passing(db1.resync(1));
    await passing(db1.barrier());
    await assignAndWait('ps1', [{ machineId, finalSync }]);
    await passing(db1.barrier());
    await db1.connection.close();
    await stopServer();
    await startServer();
    await clock.advance(4_000);
    const again = agent({ ...db1.memory, cacheId: cache.cacheId });
    await passing(again.begin());
    expect((await passing(again.barrier())).prepare.final).toEqual(finalSync);
  });

  test('takes back what it told of a frozen source that runs again, and asks again', async () => {
    const db1 = agent();
    await passing(db1.begin());
    await passing(db1.resync(1));
    await passing(db1.barrier());
    await assignAndWait('ps1', [{ machineId, finalSync }]);
    const { lsn } = await passing(db1.barrier());
    journal().upload();
    await passing(db1.waitForUploaded(lsn));
    await db1.reportStatus({ final: { failover: 'move-db1', poweredOff: true } });
    await db1.connection.close();
    expect((await machineStatus())?.finalBarrier).toMatchObject({ lsn });
    // Somebody turned it on again.
    const again = agent({ ...db1.memory, cacheId: cache.cacheId });
    await passing(again.begin());
    expect((await machineStatus())?.finalBarrier).toBeUndefined();
    expect((await passing(again.barrier())).prepare.final).toEqual(finalSync);
  });

  test('vouches for a frozen source only while it hears of it', async () => {
    const db1 = agent();
    await passing(db1.begin());
    await passing(db1.resync(1));
    await passing(db1.barrier());
    await assignAndWait('ps1', [{ machineId, finalSync }]);
    const { lsn } = await passing(db1.barrier());
    journal().upload();
    await passing(db1.waitForUploaded(lsn));
    await db1.reportStatus({ final: { failover: 'move-db1', poweredOff: false } });
    expect((await machineStatus())?.finalBarrier).toMatchObject({ lsn, poweredOff: false });
    await db1.connection.close();
    expect((await machineStatus())?.finalBarrier).toBeUndefined();
    const again = agent({ ...db1.memory, cacheId: cache.cacheId });
    expect((await passing(again.hello()))?.type).toBe(FrameType.Welcome);
    await again.reportStatus({ final: { failover: 'move-db1', poweredOff: false } });
    expect((await machineStatus())?.finalBarrier).toMatchObject({ lsn, poweredOff: false });
  });
});

describe('the limit of uploads', () => {
  test('follows the list and the time of day without a restart, and is told in the status', async () => {
    const windows = [{ from: '00:10', to: '00:20', timeZone: 'UTC', bytesPerSecond: 5_000 }];
    await operator.assign('ps1', [{ machineId }], {
      bandwidth: { bytesPerSecond: 70_000, windows },
    });
    await settleUntil(() => cache.uploadLimit() === 70_000);
    const told = async () => (await operator.status('ps1'))?.uploadLimitBytesPerSecond;
    await settleUntil(async () => (await told()) === 70_000);
    expect(server.figures().status.uploadLimitBytesPerSecond).toBe(70_000);
    // The border of the window, by the wall clock alone.
    const untilMs = Date.UTC(2026, 0, 1, 0, 10) - clock.now();
    expect(untilMs).toBeGreaterThan(0);
    clock.jumpWallClock(untilMs - 1);
    expect(cache.uploadLimit()).toBe(70_000);
    clock.jumpWallClock(1);
    expect(cache.uploadLimit()).toBe(5_000);
    await settleUntil(async () => (await told()) === 5_000);
    clock.jumpWallClock(600_000);
    expect(cache.uploadLimit()).toBe(70_000);
    await operator.assign('ps1', [{ machineId }]);
    await settleUntil(() => cache.uploadLimit() === undefined);
    await settleUntil(async () => (await told()) === undefined);
    await stopServer();
  });

  test('leaves out windows of a time zone that is not known, and says so', async () => {
    const windows = [{ from: '00:00', to: '00:00', timeZone: 'Mars/Olympus', bytesPerSecond: 1 }];
    await operator.assign('ps1', [{ machineId }], { bandwidth: { bytesPerSecond: 9, windows } });
    await settleUntil(() => cache.uploadLimit() === 9);
    const errors = async () => (await operator.status('ps1'))?.errors ?? [];
    await settleUntil(async () => (await errors()).length > 0);
    expect((await errors())[0]).toMatchObject({ code: 'TimeZoneUnknown' });
    await stopServer();
  });
});
