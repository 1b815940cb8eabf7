import 'reflect-metadata';
import { createPublicKey, generateKeyPairSync, webcrypto, X509Certificate } from 'node:crypto';
import { connect, createServer, type TLSSocket } from 'node:tls';
import { Pkcs10CertificateRequestGenerator } from '@peculiar/x509';
import { beforeAll, describe, expect, test } from 'vitest';
import { ManualClock } from '../test/fakes/manualClock.ts';
import { SeededRandom } from '../test/fakes/seededRandom.ts';
import { standsHostileBytes } from '../test/fuzz/hostile.ts';
import { certificateRequest } from '../test/fuzz/targets/certificates.ts';
import {
  CertificateAuthority,
  certificateEnd,
  certificateRequestDer,
  createAuthority,
  createCertificateRequest,
} from './authority.ts';
import { machineIdentity, processServerIdentity } from './identity.ts';

// TLS below checks validity by the machine's own clock.
const clock = new ManualClock(Date.now());
const random = new SeededRandom(21);
const deps = { clock, random };
const vaultId = '44'.repeat(16);
const machineId = '55'.repeat(16);
let authority: CertificateAuthority;
let privateKey: Uint8Array;

beforeAll(async () => {
  const made = await createAuthority(deps, { vaultId });
  privateKey = made.privateKey;
  authority = await CertificateAuthority.open(deps, made);
});

describe('certificates', () => {
  test('a machine’s names that machine, for a client, by our authority', async () => {
    const request = await createCertificateRequest(deps, { commonName: 'whatever the agent says' });
    const pem = await authority.issueMachine({ csrPem: request.csrPem, machineId });
    const certificate = new X509Certificate(pem);
    expect(certificate.subject).toBe(`CN=${machineId}`);
    expect(certificate.subjectAltName).toBe(`URI:${machineIdentity(machineId)}`);
    expect(certificate.keyUsage).toEqual(['1.3.6.1.5.5.7.3.2']);
    expect(certificate.ca).toBe(false);
    const ca = new X509Certificate(authority.certificatePem);
    expect([ca.ca, certificate.verify(ca.publicKey), certificate.checkIssued(ca)]).toEqual([
      true,
      true,
      true,
    ]);
    expect(certificate.publicKey.equals(createPublicKey(request.privateKeyPem))).toBe(true);
  });

  test('a process server’s names it and every address that agents use', async () => {
    const hosts = ['ps-0.example.org', '10.1.2.3', 'fd00::1'];
    const { certificatePem } = await authority.issueProcessServerWithKey({ name: 'site-a', hosts });
    const certificate = new X509Certificate(certificatePem);
    expect(certificate.subjectAltName).toBe(
      `URI:${processServerIdentity('site-a')}, DNS:ps-0.example.org, IP Address:10.1.2.3, IP Address:FD00:0:0:0:0:0:0:1`,
    );
    expect(certificate.keyUsage).toEqual(['1.3.6.1.5.5.7.3.1']);
    expect(certificate.checkHost('ps-0.example.org')).toBeDefined();
    expect(certificate.checkIP('10.1.2.3')).toBeDefined();
  });

  test('TLS 1.3 with both sides’ certificates works, and each sees the other’s name', async () => {
    const server = await authority.issueProcessServerWithKey({
      name: 'site-a',
      hosts: ['localhost'],
    });
    const request = await createCertificateRequest(deps, { commonName: 'agent' });
    const clientPem = await authority.issueMachine({ csrPem: request.csrPem, machineId });
    const names = await handshake({
      server: {
        cert: server.certificatePem,
        key: server.privateKeyPem,
        ca: authority.certificatePem,
      },
      client: { cert: clientPem, key: request.privateKeyPem, ca: authority.certificatePem },
    });
    expect(names).toEqual({
      client: `URI:${machineIdentity(machineId)}`,
      server: `URI:${processServerIdentity('site-a')}, DNS:localhost`,
    });
  });

  test('dates come from the clock, count at once on a machine that is late, and end before the authority does', async () => {
    const { certificatePem } = await authority.issueProcessServerWithKey({ name: 'a', hosts: [] });
    const certificate = new X509Certificate(certificatePem);
    expect(Date.parse(certificate.validFrom)).toBeLessThanOrEqual(clock.now() - 60 * 60 * 1000);
    expect(certificateEnd(certificatePem)).toBeGreaterThan(clock.now() + 5 * 365 * 86_400_000);
    const late = new ManualClock(certificateEnd(authority.certificatePem) - 1000);
    const old = await CertificateAuthority.open(
      { clock: late, random },
      { certificatePem: authority.certificatePem, privateKey },
    );
    const last = await old.issueProcessServerWithKey({ name: 'a', hosts: [] });
    expect(certificateEnd(last.certificatePem)).toBe(certificateEnd(authority.certificatePem));
  });

  test('keys and serial numbers come from the given randomness, and differ', async () => {
    const again = () =>
      createCertificateRequest({ random: new SeededRandom(4) }, { commonName: 'a' });
    expect((await again()).privateKeyPem).toBe((await again()).privateKeyPem);
    const [one, two] = [
      await authority.issueProcessServerWithKey({ name: 'a', hosts: [] }),
      await authority.issueProcessServerWithKey({ name: 'a', hosts: [] }),
    ];
    expect(one.privateKeyPem).not.toBe(two.privateKeyPem);
    expect(new X509Certificate(one.certificatePem).serialNumber).not.toBe(
      new X509Certificate(two.certificatePem).serialNumber,
    );
  });
});

describe('refusals', () => {
  const refused = { code: 'CertificateRequestInvalid' };
  const issue = (csrPem: string) => authority.issueMachine({ csrPem, machineId });

  test('text that is no request', async () => {
    const begin = '-----BEGIN CERTIFICATE REQUEST-----\n';
    const end = '\n-----END CERTIFICATE REQUEST-----';
    for (const text of [
      '',
      'x',
      authority.certificatePem,
      begin,
      `${begin}AAAA${end}`,
      begin + 'A'.repeat(20_000) + end,
    ])
      await expect(issue(text)).rejects.toMatchObject(refused);
  });

  test('a request of any bytes is refused as such, or is of the key that signed it', async () => {
    await standsHostileBytes(certificateRequest);
  });

  test('a request whose signature is not by its key', async () => {
    const { csrDer } = await createCertificateRequest(deps, { commonName: 'a' });
    const altered = Buffer.from(csrDer);
    altered.writeUInt8(altered.readUInt8(altered.length - 1) ^ 1, altered.length - 1);
    const pem = `-----BEGIN CERTIFICATE REQUEST-----\n${altered.toString('base64')}\n-----END CERTIFICATE REQUEST-----`;
    await expect(issue(pem)).rejects.toMatchObject(refused);
  });

  test('a request with another kind of key', async () => {
    const algorithm = { name: 'ECDSA', namedCurve: 'P-384', hash: 'SHA-384' };
    const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
    const request = await Pkcs10CertificateRequestGenerator.create({
      name: 'CN=a',
      keys,
      signingAlgorithm: algorithm,
    });
    await expect(issue(request.toString('pem'))).rejects.toMatchObject(refused);
  });

  test('an authority whose key is another’s, or none', async () => {
    const other = await createAuthority(deps, { vaultId });
    const { certificatePem } = authority;
    const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({
      type: 'pkcs8',
      format: 'der',
    });
    for (const wrong of [other.privateKey, rsa, new Uint8Array(10)])
      await expect(
        CertificateAuthority.open(deps, { certificatePem, privateKey: wrong }),
      ).rejects.toMatchObject({ code: 'AuthorityInvalid' });
    await expect(
      CertificateAuthority.open(deps, { certificatePem: 'x', privateKey }),
    ).rejects.toMatchObject({
      code: 'AuthorityInvalid',
    });
  });

  test('the DER of a request is what its maker signed', async () => {
    const request = await createCertificateRequest(deps, { commonName: 'a' });
    expect(certificateRequestDer(request.csrPem)).toEqual(request.csrDer);
  });
});

interface Side {
  cert: string;
  key: string;
  ca: string;
}

async function handshake(sides: {
  server: Side;
  client: Side;
}): Promise<{ client: string; server: string }> {
  const server = createServer({
    ...sides.server,
    minVersion: 'TLSv1.3',
    requestCert: true,
    rejectUnauthorized: true,
  });
  try {
    const seen = new Promise<string>((resolve, reject) => {
      server.once('secureConnection', (socket) => {
        resolve(nameOf(socket));
        socket.end();
      });
      server.once('tlsClientError', reject);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const address = server.address();
    const port = typeof address === 'object' && address !== null ? address.port : 0;
    const socket = connect({ ...sides.client, port, host: '127.0.0.1', servername: 'localhost' });
    const serverName = await new Promise<string>((resolve, reject) => {
      socket.once('secureConnect', () => resolve(nameOf(socket)));
      socket.once('error', reject);
    });
    const client = await seen;
    socket.destroy();
    return { client, server: serverName };
  } finally {
    server.close();
  }
}

function nameOf(socket: TLSSocket): string {
  return socket.getPeerX509Certificate()?.subjectAltName ?? '';
}
