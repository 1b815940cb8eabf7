import { rm } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect } from 'vitest';
import { FrameType, RefusalCode } from '../../dataplane/wire/messages.ts';
import { systemClock } from '../../platform/node/clock.ts';
import { systemRandom } from '../../platform/node/random.ts';
import { connectTls } from '../../platform/node/tls.ts';
import type { Channel } from '../../platform/ports.ts';
import { encodeDocument } from '../../vault/documents/codec.ts';
import { type VaultDocument, vaultDocumentSchema } from '../../vault/documents/vault.ts';
import { vaultLayout } from '../../vault/layout.ts';
import { enrolAgent, freshMemory, ScriptedAgent, wholeLeaf } from '../fakes/scriptedAgent.ts';
import { eventually, test } from '../fixtures/serverRoom.ts';
import type { ProcessServerProcess } from '../servers/processServerProcess.ts';

const policy = { crashConsistentSeconds: 1, appConsistentSeconds: 0 };

describe('enrolment', () => {
  test('gives a certificate for the right passphrase and a clear refusal for a wrong one', async ({
    room,
  }) => {
    const server = await room.start();
    const machineId = room.operator.addMachine('db1');
    const ask = async (passphrase: string) =>
      enrolAgent({
        clock: systemClock,
        random: systemRandom,
        channel: await connectTls({ host: '127.0.0.1', port: await server.port() }),
        name: 'db1',
        passphrase,
      });
    await expect(ask('wrong')).rejects.toThrow('WrongPassphrase');
    await server.logged('Enrolment refused', 'WrongPassphrase');
    const enrolled = await ask(room.operator.passphrase);
    expect(enrolled.machineId).toBe(machineId);
    await room.operator.assign('ps1', [{ machineId, policy }]);
    const { certificatePem, privateKeyPem } = enrolled;
    await eventually(async () => {
      const channel = await room.channelTo(server, { cert: certificatePem, key: privateKeyPem });
      const memory = freshMemory(machineId);
      const answer = await new ScriptedAgent({ channel, clock: systemClock, memory }).hello();
      return answer?.type === FrameType.Welcome;
    }, 'the enrolled agent is welcome');
  });

  test('does not let one machine’s certificate speak for another', async ({ room }) => {
    const server = await room.start();
    const [mine, other] = [room.operator.addMachine('a'), room.operator.addMachine('b')];
    await server.port();
    await room.operator.assign('ps1', [
      { machineId: mine, policy },
      { machineId: other, name: 'b', policy },
    ]);
    await room.agentOf(server, freshMemory(other));
    const channel = await room.channelTo(server, await room.credentials(mine));
    const impostor = new ScriptedAgent({ channel, clock: systemClock, memory: freshMemory(other) });
    expect(await impostor.hello()).toMatchObject({
      message: { code: RefusalCode.CertificateOfAnotherMachine },
    });
    await server.logged('An agent was refused', RefusalCode.CertificateOfAnotherMachine);
    await eventually(
      async () =>
        (await room.machineOf('ps1', other))?.errors.some(
          (error) => error.code === RefusalCode.CertificateOfAnotherMachine,
        ),
      'the status tells of the impostor',
    );
  });
});

describe('the way of the data', () => {
  test('leads from the agent over a barrier into the vault, and the status tells', async ({
    room,
  }) => {
    const server = await room.start();
    const machineId = room.operator.addMachine('db1');
    await server.port();
    await room.operator.assign('ps1', [{ machineId, policy }]);
    const { agent, welcome } = await room.agentOf(server, freshMemory(machineId));
    expect(welcome.resync).toEqual({ required: true, reason: 'Initial' });
    await agent.resync(7);
    const { lsn, timeMs } = await agent.barrier();
    await agent.waitForUploaded(lsn);
    const status = await eventually(async () => {
      const machine = await room.machineOf('ps1', machineId);
      return machine?.uploadedBarrier?.lsn === lsn && machine;
    }, 'the status tells the uploaded barrier');
    expect(status).toMatchObject({
      agent: { connected: true },
      uploadedBarrier: { timeMs, consistency: 'Crash' },
      disks: [{ index: 0, sizeBytes: 1 << 20 }],
      errors: [],
    });
    const answer = await fetch(`http://127.0.0.1:${await server.metricsPort()}/metrics`);
    expect(await answer.text()).toMatch(
      /farshore_processserver_machine_uploaded_lsn{.*machine="db1"} [1-9]/,
    );
    expect(await server.kill('SIGTERM')).toBe(0);
  });

  test('loses nothing that was acknowledged when the process is killed, whenever that is', async ({
    room,
  }) => {
    let server = await room.start();
    const machineId = room.operator.addMachine('db1');
    await server.port();
    await room.operator.assign('ps1', [{ machineId, policy }]);
    const memory = freshMemory(machineId);
    const first = await room.agentOf(server, memory);
    await first.agent.resync(1);
    const barrier = await first.agent.barrier();
    memory.cacheId = first.welcome.cacheId;
    for (let round = 0; round < 3; round += 1) {
      const { agent, welcome } = await room.agentOf(server, memory);
      memory.cacheId = welcome.cacheId;
      let acknowledgedLsn = welcome.journaledLsn;
      for (let leaf = 0; leaf < 16; leaf += 1) {
        const lsn = await agent.sendRecords([wholeLeaf(leaf, round * 16 + leaf + 1)]);
        await agent.settled();
        acknowledgedLsn = lsn;
      }
      const sending = (async () => {
        for (let leaf = 0; ; leaf += 1) await agent.sendRecords([wholeLeaf(leaf % 16, 200)]);
      })().catch(() => undefined);
      await server.kill('SIGKILL');
      await sending;
      server = await room.start();
      const after = await room.agentOf(server, memory);
      expect(after.welcome.cacheId).toBe(welcome.cacheId);
      expect(after.welcome.journaledLsn).toBeGreaterThanOrEqual(acknowledgedLsn);
      expect(after.welcome.journaledLsn).toBeLessThanOrEqual(memory.capturedLsn);
      expect(after.welcome.lastBarrierLsn).toBeGreaterThanOrEqual(barrier.lsn);
      expect(after.welcome.resync).toEqual({ required: false });
      await after.agent.connection.close();
    }
    const { agent } = await room.agentOf(server, memory);
    const { lsn } = await agent.barrier();
    await agent.waitForUploaded(lsn);
  });

  test('goes on from the vault when the cache is gone', async ({ room }) => {
    const server = await room.start({ cache: path.join(room.directory, 'first') });
    const machineId = room.operator.addMachine('db1');
    await server.port();
    await room.operator.assign('ps1', [{ machineId, policy }]);
    const memory = freshMemory(machineId);
    const { agent, welcome } = await room.agentOf(server, memory);
    await agent.resync(3);
    const { lsn } = await agent.barrier();
    memory.cacheId = welcome.cacheId;
    await agent.waitForUploaded(lsn);
    await server.kill('SIGKILL');
    await rm(path.join(room.directory, 'first'), { recursive: true });

    const again = await room.start({ cache: path.join(room.directory, 'second') });
    await again.port();
    await room.operator.assign('ps1', [{ machineId, policy }]);
    const rejoined = await room.agentOf(again, memory);
    expect(rejoined.welcome.cacheId).not.toBe(welcome.cacheId);
    expect(rejoined.welcome.uploadedLsn).toBeGreaterThanOrEqual(lsn);
    expect(rejoined.welcome.lastBarrierLsn).toBe(lsn);
    if (rejoined.welcome.resync.required) await rejoined.agent.resync(3, 'VaultGap');
    const next = await rejoined.agent.barrier();
    await rejoined.agent.waitForUploaded(next.lsn);
  });

  test('is open while the vault is dead, and catches up', async ({ azurite, room }) => {
    const server = await room.start();
    const machineId = room.operator.addMachine('db1');
    await server.port();
    await room.operator.assign('ps1', [{ machineId, policy }]);
    const { agent } = await room.agentOf(server, freshMemory(machineId));
    await agent.resync(1);
    await agent.waitForUploaded((await agent.barrier()).lsn);
    await azurite.stop();
    try {
      await agent.sendRecords([wholeLeaf(3, 77)]);
      const { lsn } = await agent.barrier();
      expect(agent.uploadedBarrierLsn).toBeLessThan(lsn);
      await azurite.restart();
      await agent.waitForUploaded(lsn);
    } finally {
      await azurite.restart();
    }
  });

  test('is fenced for the older of two process servers that both believe they own the machine', async ({
    room,
  }) => {
    const [one, two] = [await room.start({ name: 'ps1' }), await room.start({ name: 'ps2' })];
    const machineId = room.operator.addMachine('db1');
    await Promise.all([one.port(), two.port()]);
    await room.operator.assign('ps1', [{ machineId, policy }]);
    const memory = freshMemory(machineId);
    const first = await room.agentOf(one, memory);
    await first.agent.resync(1);
    memory.cacheId = first.welcome.cacheId;
    await first.agent.waitForUploaded((await first.agent.barrier()).lsn);

    await room.operator.assign('ps2', [{ machineId, writerEpoch: 2, policy }]);
    const clone = { ...memory };
    const second = await room.agentOf(two, clone);
    expect(second.welcome.writerEpoch).toBe(2);
    // The old one does not know yet: it takes more, but what it takes never gets into the journal.
    const sent = first.agent.sendRecords([wholeLeaf(2, 9)]).then(() => first.agent.barrier());
    sent.catch(() => undefined);
    await eventually(
      async () => (await room.machineOf('ps1', machineId))?.fenced,
      'the old one says that it is fenced',
    );
    expect((await room.machineOf('ps1', machineId))?.fenced).toEqual({ by: 'HigherEpoch' });
    expect(await room.refusalOf(one, memory)).toBe(RefusalCode.NotOwner);
    if (second.welcome.resync.required) await second.agent.resync(1, 'VaultGap');
    const { lsn } = await second.agent.barrier();
    await second.agent.waitForUploaded(lsn);
  });

  test('serves twenty agents at once', async ({ room }) => {
    const server = await room.start();
    await server.port();
    const machines = Array.from({ length: 20 }, (_, index) => ({
      machineId: room.operator.addMachine(`m${index}`),
      name: `m${index}`,
      policy,
    }));
    await room.operator.assign('ps1', machines);
    const uploaded = await Promise.all(
      machines.map(async ({ machineId }, index) => {
        const { agent } = await room.agentOf(server, freshMemory(machineId));
        await agent.resync(index + 1);
        const { lsn } = await agent.barrier();
        await agent.waitForUploaded(lsn);
        return lsn;
      }),
    );
    expect(uploaded).toEqual(machines.map(() => 19n));
  });
});

describe('frames that are', () => {
  const damages: [string, string, (bytes: Buffer) => Buffer][] = [
    ['cut', 'FrameCut', (bytes) => bytes.subarray(0, bytes.length - 5)],
    ['too long', 'FrameTooLong', (bytes) => bytes.fill(0x3f, 0, 4)],
    ['flipped', 'FrameDamaged', (bytes) => bytes.fill((bytes[99] ?? 0) ^ 1, 99, 100)],
  ];

  test.for(damages)(
    '%s end the session with a clear error and lose nothing',
    async ([, code, damage], { room }) => {
      const server = await room.start();
      const machineId = room.operator.addMachine('db1');
      await server.port();
      await room.operator.assign('ps1', [{ machineId, policy }]);
      const memory = freshMemory(machineId);
      const proof = await room.credentials(machineId);
      await eventually(
        async () => (await room.machineOf('ps1', machineId)) !== undefined,
        'assigned',
      );
      const channel = await room.channelTo(server, proof);
      let broken = false;
      const lossy: Channel = {
        peer: channel.peer,
        read: () => channel.read(),
        close: () => channel.close(),
        destroy: () => channel.destroy(),
        write: async (parts) => {
          const whole = Buffer.concat(parts);
          await channel.write([broken ? damage(whole) : whole]);
          if (broken && code === 'FrameCut') await channel.close();
        },
      };
      const agent = new ScriptedAgent({ channel: lossy, clock: systemClock, memory });
      const welcome = await agent.begin();
      memory.cacheId = welcome.cacheId;
      await agent.resync(4);
      const { lsn } = await agent.barrier();
      await agent.waitForUploaded(lsn);
      broken = true;
      await agent.sendRecords([wholeLeaf(5, 6)]).catch(() => undefined);
      if (code !== 'FrameCut')
        expect((await agent.waitFor(FrameType.Refused)).message.message).toContain(code);
      await server.logged('The connection with the agent failed', code);
      const again = await room.agentOf(server, memory);
      expect(again.welcome.journaledLsn).toBeGreaterThanOrEqual(lsn);
      expect(again.welcome.resync).toEqual({ required: false });
    },
  );
});

describe('starting', () => {
  test('with a wrong token ends with a code and says why', async ({ room }) => {
    const server = await room.start({ token: 'not-the-token-at-all' });
    expect(await server.exit()).toBe(77);
    const line = await server.logged('The process server ends', 'EnrolmentRefused');
    expect(JSON.stringify(line)).toContain('TokenWrong');
  });

  test('with a key that the vault refuses ends with a code', async ({ azurite, room }) => {
    const wrong = azurite.connectionString.replace(
      /AccountKey=[^;]+/,
      `AccountKey=${Buffer.alloc(64, 1).toString('base64')}`,
    );
    const server = await room.start({ connectionString: wrong });
    expect(await server.exit()).toBe(77);
    await server.logged('The process server ends', 'VaultRefusedKey');
  });

  test('on a vault of a newer format ends with a code and touches nothing', async ({ room }) => {
    const document: VaultDocument = { ...room.operator.vault, formatVersion: 99 };
    await room.store.put(vaultLayout.vault, encodeDocument(vaultDocumentSchema, document));
    const server = await room.start();
    expect(await server.exit()).toBe(65);
    await server.logged('The process server ends', 'VaultFormatTooNew');
    expect(await room.operator.status('ps1')).toBeUndefined();
  });

  test('waits for a vault that does not answer', async ({ azurite, room }) => {
    await azurite.stop();
    let server: ProcessServerProcess;
    try {
      server = await room.start();
      await server.logged('The vault does not answer', 'VaultUnreachable');
    } finally {
      await azurite.restart();
    }
    await server.port();
  });
});
