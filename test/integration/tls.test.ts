import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { systemClock } from '../../platform/node/clock.ts';
import { systemRandom } from '../../platform/node/random.ts';
import { connectTls, listenTls } from '../../platform/node/tls.ts';
import type { Channel, ChannelListener } from '../../platform/ports.ts';
import {
  CertificateAuthority,
  createAuthority,
  createCertificateRequest,
} from '../../vault/authority.ts';
import {
  machineIdentity,
  processServerIdentity,
  processServerOfIdentities,
} from '../../vault/identity.ts';

const deps = { clock: systemClock, random: systemRandom };
const machineId = '0a'.repeat(16);
const isProcessServer = (identities: readonly string[]) =>
  processServerOfIdentities(identities) !== undefined;

let ca: CertificateAuthority;
let otherCa: CertificateAuthority;
let listener: ChannelListener;
let accepted: Channel[];
let waiting: ((channel: Channel) => void)[];
let opened: Channel[];

async function authority(): Promise<CertificateAuthority> {
  return await CertificateAuthority.open(
    deps,
    await createAuthority(deps, { vaultId: 'a1'.repeat(16) }),
  );
}

async function machineCredentials(from: CertificateAuthority) {
  const { csrPem, privateKeyPem } = await createCertificateRequest(deps, { commonName: 'db1' });
  return { cert: await from.issueMachine({ csrPem, machineId }), key: privateKeyPem };
}

function nextAccepted(): Promise<Channel> {
  const ready = accepted.shift();
  return ready === undefined
    ? new Promise((resolve) => waiting.push(resolve))
    : Promise.resolve(ready);
}

async function connect(options: Partial<Parameters<typeof connectTls>[0]> = {}): Promise<Channel> {
  const channel = await connectTls({
    host: '127.0.0.1',
    port: listener.port,
    ca: ca.certificatePem,
    accepts: isProcessServer,
    ...options,
  });
  opened.push(channel);
  return channel;
}

async function readExactly(channel: Channel, count: number): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for (let have = 0; have < count; ) {
    const chunk = await channel.read();
    if (chunk === undefined) throw new Error(`ended after ${have} bytes`);
    chunks.push(chunk);
    have += chunk.length;
  }
  return Buffer.concat(chunks);
}

beforeEach(async () => {
  accepted = [];
  waiting = [];
  opened = [];
  ca = await authority();
  otherCa = await authority();
  const issued = await ca.issueProcessServerWithKey({ name: 'ps1', hosts: ['ps1.example'] });
  listener = await listenTls({
    host: '127.0.0.1',
    port: 0,
    cert: issued.certificatePem,
    key: issued.privateKeyPem,
    ca: ca.certificatePem,
    onChannel: (channel) => {
      opened.push(channel);
      const waiter = waiting.shift();
      if (waiter === undefined) accepted.push(channel);
      else waiter(channel);
    },
  });
});

afterEach(async () => {
  for (const channel of opened) channel.destroy();
  await listener.close();
});

describe('channels over TLS', () => {
  test('carry bytes both ways between a machine and a process server that know each other', async () => {
    const near = await connect(await machineCredentials(ca));
    const far = await nextAccepted();
    expect(near.peer.certificate).toEqual({
      state: 'Verified',
      identities: [processServerIdentity('ps1')],
    });
    expect(far.peer.certificate).toEqual({
      state: 'Verified',
      identities: [machineIdentity(machineId)],
    });
    const bytes = systemRandom.bytes(3_000_000);
    const writing = near.write([bytes.subarray(0, 10), bytes.subarray(10)]);
    expect((await readExactly(far, bytes.length)).equals(bytes)).toBe(true);
    await writing;
    await far.write([Buffer.from('hello')]);
    expect((await readExactly(near, 5)).toString()).toBe('hello');
  });

  test('show at the far end that a client has no certificate', async () => {
    await connect();
    expect((await nextAccepted()).peer.certificate).toEqual({ state: 'None' });
  });

  test('show at the far end that a client’s certificate is of another CA', async () => {
    await connect(await machineCredentials(otherCa));
    expect((await nextAccepted()).peer.certificate).toMatchObject({ state: 'Refused' });
  });

  test('are not made with a process server of another CA', async () => {
    await expect(connect({ ca: otherCa.certificatePem })).rejects.toMatchObject({
      code: 'PeerNotTrusted',
    });
  });

  test('are not made with a machine that poses as a process server', async () => {
    listener.replaceCertificate({
      ...(await machineCredentials(ca)),
      ca: ca.certificatePem,
    });
    await expect(connect()).rejects.toMatchObject({ code: 'PeerNotTrusted' });
  });

  test('are made with anybody without a CA, for enrolment, and prove nothing', async () => {
    const near = await connectTls({ host: '127.0.0.1', port: listener.port });
    opened.push(near);
    expect(near.peer.certificate.state).toBe('Refused');
  });

  test('say what is wrong when nobody listens', async () => {
    await listener.close();
    await expect(connect()).rejects.toMatchObject({ code: 'ConnectionRefused' });
  });
});
