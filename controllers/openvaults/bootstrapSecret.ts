/** The Secret with the bootstrap file of a process server or applier: made, kept current, given a new token when that was spent. */

import { Reason } from '../../crds/index.ts';
import { errorMessage } from '../../platform/errors.ts';
import type { KubeClient, OwnerReference } from '../../platform/kubernetes.ts';
import type { Random } from '../../platform/ports.ts';
import { type Bootstrap, bootstrapSchema, decodeBootstrap } from '../../vault/bootstrap.ts';
import { applySecret, optionalSecretText, SecretError, type SecretName } from '../secrets.ts';
import { newToken } from './enrolment.ts';
import type { OpenVault } from './openVaults.ts';

export const BOOTSTRAP_ENTRY = 'bootstrap.json';

export interface BootstrapWish {
  secret: SecretName;
  owner: OwnerReference;
  name: string;
  port?: number;
  endpoints?: readonly string[];
  cacheDirectory?: string;
}

/** Returns the file as it stands now. The token stays unless `renewToken`. Throws KubeError. */
export async function ensureBootstrap(
  deps: { kube: KubeClient; random: Random },
  vault: OpenVault,
  wish: BootstrapWish,
  options: { renewToken: boolean } = { renewToken: false },
): Promise<Bootstrap> {
  const text = await optionalSecretText(deps.kube, wish.secret, BOOTSTRAP_ENTRY);
  const before = text === undefined ? undefined : readable(text, wish.secret);
  const wanted = bootstrapSchema.parse({
    name: wish.name,
    vault: vault.location,
    vaultId: vault.document.vaultId,
    controllerPublicKey: vault.installation.signingKey.publicKey,
    token: options.renewToken ? newToken(deps.random) : (before?.token ?? newToken(deps.random)),
    ...(wish.port === undefined ? {} : { port: wish.port }),
    ...(wish.endpoints === undefined ? {} : { endpoints: wish.endpoints }),
    ...(wish.cacheDirectory === undefined ? {} : { cacheDirectory: wish.cacheDirectory }),
  });
  const file = `${JSON.stringify(wanted, undefined, 2)}\n`;
  if (file !== text)
    await applySecret(deps.kube, wish.secret, {
      data: { [BOOTSTRAP_ENTRY]: file },
      owner: wish.owner,
    });
  return wanted;
}

/** A file that somebody broke is refused, not replaced: its token may be in use. */
function readable(text: string, secret: SecretName): Bootstrap {
  try {
    return decodeBootstrap(text);
  } catch (cause) {
    throw new SecretError(
      Reason.SecretInvalid,
      `Secret ${secret.namespace}/${secret.name} holds no bootstrap file: ${errorMessage(cause)} Delete it; it is made anew.`,
      { cause },
    );
  }
}
