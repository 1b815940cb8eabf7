/** Secrets as controllers use them: one entry read, one made if absent, one kept as it should be. */
import { Reason } from '../crds/index.ts';
import { FarshoreError } from '../platform/errors.ts';
import {
  isKubeError,
  type KubeClient,
  kubeTypes,
  type OwnerReference,
  type SecretObject,
} from '../platform/kubernetes.ts';

export interface SecretName {
  namespace: string;
  name: string;
}

/** Codes SecretNotFound, SecretInvalid. */
export class SecretError extends FarshoreError {}

/** The text of one entry. Throws SecretError naming the Secret, never its content. */
export async function secretText(
  kube: KubeClient,
  key: SecretName,
  entry: string,
): Promise<string> {
  const text = await optionalSecretText(kube, key, entry);
  if (text === undefined)
    throw new SecretError(
      Reason.SecretNotFound,
      `Secret ${key.namespace}/${key.name} does not exist. Create it with the entry ${entry}.`,
    );
  return text;
}

/** Undefined when the Secret does not exist; SecretError when it lacks the entry. */
export async function optionalSecretText(
  kube: KubeClient,
  key: SecretName,
  entry: string,
): Promise<string | undefined> {
  const secret = await kube.get<SecretObject>(kubeTypes.secret, key);
  if (secret === undefined) return undefined;
  const value = secret.data?.[entry];
  if (value === undefined || value === '')
    throw new SecretError(
      Reason.SecretInvalid,
      `Secret ${key.namespace}/${key.name} has no entry ${entry}. Add it.`,
    );
  return Buffer.from(value, 'base64').toString('utf8');
}

/**
 * What the Secret holds, made first when it does not exist: for keys that must be durable before anything depends on them. Of two
 * who make it at once both get the same.
 */
export async function secretTextOrCreate(
  kube: KubeClient,
  key: SecretName,
  entry: string,
  make: () => string,
): Promise<string> {
  const present = await optionalSecretText(kube, key, entry);
  if (present !== undefined) return present;
  try {
    await kube.create(kubeTypes.secret, secretObject(key, { [entry]: make() }));
  } catch (error) {
    if (!isKubeError(error, 'AlreadyExists')) throw error;
  }
  return await secretText(kube, key, entry);
}

/** Server-side apply of a Secret that an object of ours owns. */
export async function applySecret(
  kube: KubeClient,
  key: SecretName,
  options: { data: Record<string, string>; owner: OwnerReference },
): Promise<void> {
  const { metadata, ...rest } = secretObject(key, options.data);
  await kube.apply<SecretObject>(kubeTypes.secret, {
    ...rest,
    metadata: { ...metadata, ownerReferences: [options.owner] },
  });
}

function secretObject(key: SecretName, data: Record<string, string>): SecretObject {
  return {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: {
      name: key.name,
      namespace: key.namespace,
      labels: { 'app.kubernetes.io/managed-by': 'farshore' },
    },
    type: 'Opaque',
    data: Object.fromEntries(
      Object.entries(data).map(([entry, text]) => [entry, Buffer.from(text).toString('base64')]),
    ),
  };
}
