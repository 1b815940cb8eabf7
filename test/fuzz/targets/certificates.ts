import { createPublicKey, X509Certificate } from 'node:crypto';
import {
  AuthorityError,
  CertificateAuthority,
  certificateRequestDer,
  createAuthority,
  createCertificateRequest,
} from '../../../vault/authority.ts';
import { ManualClock } from '../../fakes/manualClock.ts';
import { SeededRandom } from '../../fakes/seededRandom.ts';
import { expectOwn, type FuzzTarget } from '../target.ts';

const deps = { clock: new ManualClock(), random: new SeededRandom(8) };
const machineId = '55'.repeat(16);
const authority = createAuthority(deps, { vaultId: '44'.repeat(16) }).then((made) =>
  CertificateAuthority.open(deps, made),
);
const request = await createCertificateRequest(deps, { commonName: 'db1' });
const asker = createPublicKey(request.privateKeyPem);

/** The DER of an agent's certificate request. Whatever is accepted must be of the key that signed. */
export const certificateRequest: FuzzTarget = {
  name: 'certificate-request',
  samples: () => [request.csrDer],
  run: async (bytes) => {
    const base64 = Buffer.from(bytes).toString('base64');
    const csrPem = `-----BEGIN CERTIFICATE REQUEST-----\n${base64}\n-----END CERTIFICATE REQUEST-----`;
    try {
      certificateRequestDer(csrPem);
      const issued = await (await authority).issueMachine({ csrPem, machineId });
      if (!new X509Certificate(issued).publicKey.equals(asker))
        throw new Error('a certificate was issued for a key that has signed nothing');
    } catch (error) {
      expectOwn(error, AuthorityError, /^CertificateRequestInvalid$/);
    }
  },
};
