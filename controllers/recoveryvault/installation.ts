/** Who this operator is: made once, kept in a Secret, the same after every restart and for every vault. */
import { createHash } from 'node:crypto';
import type { KubeClient } from '../../platform/kubernetes.ts';
import type { Random } from '../../platform/ports.ts';
import { decodeSigningKey, encodeSigningKey, generateSigningKey } from '../../vault/signing.ts';
import type { Installation } from '../openvaults/openVaults.ts';
import { secretTextOrCreate } from '../secrets.ts';

export const CONTROLLER_KEY_SECRET = 'farshore-controller-key';
const ENTRY = 'controller-key';

/** Throws KubeError, SecretError, KeyStringError. */
export async function loadInstallation(
  deps: { kube: KubeClient; random: Random },
  options: { namespace: string; holder: string },
): Promise<Installation> {
  const text = await secretTextOrCreate(
    deps.kube,
    { namespace: options.namespace, name: CONTROLLER_KEY_SECRET },
    ENTRY,
    () => encodeSigningKey(generateSigningKey(deps.random)),
  );
  const signingKey = decodeSigningKey(text);
  // From the key, so that whoever has the key is the installation, and there are not two facts to keep together.
  const id = createHash('sha256')
    .update(`farshore-installation-v1|${signingKey.publicKey}`)
    .digest('hex')
    .slice(0, 32);
  return { id, signingKey, holder: options.holder };
}
