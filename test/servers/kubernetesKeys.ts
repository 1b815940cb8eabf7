import 'reflect-metadata';
import { webcrypto } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import * as x509 from '@peculiar/x509';

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
const YEAR_MS = 365 * 24 * 3600 * 1000;

/**
 * Writes a certificate authority (ca.crt), the API server's certificate (apiserver.crt, .key), a cluster administrator's
 * (admin.crt, .key) and the service-account key pair (service-account.key, .pub) into the directory. Valid for a year.
 */
export async function writeClusterKeys(directory: string): Promise<void> {
  const write = (name: string, pem: string) =>
    writeFileSync(path.join(directory, name), `${pem}\n`, { mode: 0o600 });
  const authority = await keyPair();
  const ca = await x509.X509CertificateGenerator.createSelfSigned({
    name: 'CN=farshore-test-ca',
    keys: authority,
    signingAlgorithm: algorithm,
    ...validity(),
    extensions: [
      new x509.BasicConstraintsExtension(true, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign, true),
    ],
  });
  write('ca.crt', ca.toString('pem'));

  const issue = async (file: string, subject: string, extensions: x509.Extension[]) => {
    const keys = await keyPair();
    const certificate = await x509.X509CertificateGenerator.create({
      subject,
      issuer: ca.subject,
      publicKey: keys.publicKey,
      signingKey: authority.privateKey,
      signingAlgorithm: algorithm,
      ...validity(),
      extensions,
    });
    write(`${file}.crt`, certificate.toString('pem'));
    write(`${file}.key`, await privatePem(keys));
  };
  await issue('apiserver', 'CN=kube-apiserver', [
    new x509.SubjectAlternativeNameExtension([
      { type: 'ip', value: '127.0.0.1' },
      { type: 'ip', value: '10.96.0.1' },
      { type: 'dns', value: 'localhost' },
      { type: 'dns', value: 'kubernetes.default.svc' },
    ]),
    new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
  ]);
  await issue('admin', 'O=system:masters,CN=admin', [
    new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.clientAuth]),
  ]);

  const serviceAccount = await keyPair();
  write('service-account.key', await privatePem(serviceAccount));
  const spki = await webcrypto.subtle.exportKey('spki', serviceAccount.publicKey);
  write('service-account.pub', x509.PemConverter.encode(spki, 'PUBLIC KEY'));
}

async function keyPair(): Promise<webcrypto.CryptoKeyPair> {
  return (await webcrypto.subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, true, [
    'sign',
    'verify',
  ])) as webcrypto.CryptoKeyPair;
}

async function privatePem(keys: webcrypto.CryptoKeyPair): Promise<string> {
  return x509.PemConverter.encode(
    await webcrypto.subtle.exportKey('pkcs8', keys.privateKey),
    'PRIVATE KEY',
  );
}

function validity(): { notBefore: Date; notAfter: Date; serialNumber: string } {
  const now = Date.now();
  return {
    notBefore: new Date(now - 3600_000),
    notAfter: new Date(now + YEAR_MS),
    serialNumber: Buffer.from(webcrypto.getRandomValues(new Uint8Array(15))).toString('hex'),
  };
}
