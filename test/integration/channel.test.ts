/** Channels over TLS on the loopback interface do what every channel must. */
import { afterAll, beforeAll, describe, onTestFinished } from 'vitest';
import { systemClock } from '../../platform/node/clock.ts';
import { systemRandom } from '../../platform/node/random.ts';
import { connectTls, listenTls } from '../../platform/node/tls.ts';
import type { Channel, ChannelListener } from '../../platform/ports.ts';
import { CertificateAuthority, createAuthority } from '../../vault/authority.ts';
import { channelConformance } from '../conformance/channel.ts';

const deps = { clock: systemClock, random: systemRandom };
let ca: CertificateAuthority;
let listener: ChannelListener;
let accept: (channel: Channel) => void;

beforeAll(async () => {
  ca = await CertificateAuthority.open(
    deps,
    await createAuthority(deps, { vaultId: 'a1'.repeat(16) }),
  );
  const issued = await ca.issueProcessServerWithKey({ name: 'ps1', hosts: ['ps1.example'] });
  listener = await listenTls({
    host: '127.0.0.1',
    port: 0,
    cert: issued.certificatePem,
    key: issued.privateKeyPem,
    ca: ca.certificatePem,
    onChannel: (channel) => accept(channel),
  });
});

afterAll(async () => {
  await listener?.close();
});

async function connected(): Promise<{ client: Channel; server: Channel }> {
  const accepted = Promise.withResolvers<Channel>();
  accept = accepted.resolve;
  const { port } = listener;
  const client = await connectTls({ host: '127.0.0.1', port, ca: ca.certificatePem });
  const server = await accepted.promise;
  onTestFinished(() => {
    client.destroy();
    server.destroy();
  });
  return { client, server };
}

describe('a TLS channel, from the side that connected', () => {
  channelConformance(async () => {
    const { client, server } = await connected();
    return { near: client, far: server };
  });
});

describe('a TLS channel, from the side that listened', () => {
  channelConformance(async () => {
    const { client, server } = await connected();
    return { near: server, far: client };
  });
});
