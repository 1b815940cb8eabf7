/** Where every process gets its vault from: `main.ts` files call `openVaultStores`. */
import type { TokenCredential } from '@azure/identity';
import {
  AnonymousCredential,
  BlobServiceClient,
  type ContainerClient,
  newPipeline,
  type Pipeline,
  StorageSharedKeyCredential,
} from '@azure/storage-blob';
import { FarshoreError } from '../errors.ts';
import type { Clock, ObjectStore, PageBlobStore, Random } from '../ports.ts';
import { BlobCalls, type BlobPatience } from './blobCalls.ts';
import { AzureBlobStore } from './blobStore.ts';
import { trustOf } from './cloud.ts';
import { AzurePageBlobStore } from './pageBlobStore.ts';

/** How to reach a vault's blobs: a connection string, or an endpoint with an identity or a SAS. */
export type VaultAccess = (
  | { connectionString: string }
  | { blobEndpoint: string; credential: TokenCredential }
  | { blobEndpoint: string; sasToken: string }
) & {
  container: string;
  /** Path inside the container; empty: its root. */
  prefix?: string | undefined;
  /** PEM of further authorities to trust for the endpoint (a Custom cloud). */
  caBundle?: string | undefined;
  /** What tokens are asked for; https://storage.azure.com/.default unless the cloud has another. */
  tokenScope?: string | undefined;
  patience?: BlobPatience | undefined;
};

export interface VaultStores {
  objects: ObjectStore;
  pages: PageBlobStore;
  /** Host and container, for messages and status. */
  location: string;
}

/** A connection string or endpoint that can't be used. Code VaultAccessInvalid; never repeats the secret. */
export class VaultAccessError extends FarshoreError {
  constructor(problem: string) {
    super(
      'VaultAccessInvalid',
      `The access to the vault can't be used: ${problem}. Correct it where the vault's credentials are configured.`,
    );
  }
}

/** Opens nothing yet: the first call tells whether the vault can be reached. Throws VaultAccessError. */
export function openVaultStores(
  deps: { clock: Clock; random: Random },
  access: VaultAccess,
): VaultStores {
  const container = containerClient(access);
  const location = `${new URL(container.url).host}/${container.containerName}`;
  const calls = new BlobCalls(deps, { account: location, patience: access.patience });
  const trimmed = (access.prefix ?? '').replace(/^\/+|\/+$/g, '');
  const prefix = trimmed === '' ? '' : `${trimmed}/`;
  return {
    objects: new AzureBlobStore({ container, calls }, { prefix }),
    pages: new AzurePageBlobStore({ container, calls }, { prefix }),
    location,
  };
}

/** Makes the container when it is not there. For an installation's first start, and for tests. */
export async function ensureVaultContainer(
  deps: { clock: Clock; random: Random },
  access: VaultAccess,
): Promise<'created' | 'exists'> {
  const container = containerClient(access);
  const account = new URL(container.url).host;
  const calls = new BlobCalls(deps, { account, patience: access.patience });
  const call = { operation: 'Creating container', object: access.container };
  return await calls.run(call, async ({ signal }) => {
    const { succeeded } = await container.createIfNotExists({ abortSignal: signal });
    return succeeded ? 'created' : 'exists';
  });
}

/** A pipeline without the SDK's retries (BlobCalls has ours) that trusts `caBundle` too. */
export function storagePipeline(
  credential: Parameters<typeof newPipeline>[0],
  caBundle: string | undefined,
  tokenScope?: string,
): Pipeline {
  // `tlsOptions` is passed on to the HTTP pipeline, though the storage package's own type does not name it.
  const options = {
    retryOptions: { maxTries: 1 },
    userAgentOptions: { userAgentPrefix: 'farshore' },
    ...trustOf(caBundle === undefined ? {} : { ca: caBundle }),
    ...(tokenScope === undefined ? {} : { audience: tokenScope }),
  };
  return newPipeline(credential, options);
}

function containerClient(access: VaultAccess): ContainerClient {
  if (!/^[a-z0-9](-?[a-z0-9]){2,62}$/.test(access.container))
    throw new VaultAccessError(`${JSON.stringify(access.container)} is not a container's name`);
  return serviceClient(access).getContainerClient(access.container);
}

function serviceClient(access: VaultAccess): BlobServiceClient {
  const pipeline = (credential: Parameters<typeof newPipeline>[0]) =>
    storagePipeline(credential, access.caBundle, access.tokenScope);
  if ('credential' in access)
    return new BlobServiceClient(endpointOf(access.blobEndpoint), pipeline(access.credential));
  if ('sasToken' in access)
    return new BlobServiceClient(
      `${endpointOf(access.blobEndpoint)}?${access.sasToken.replace(/^\?/, '')}`,
      pipeline(new AnonymousCredential()),
    );
  return fromConnectionString(access.connectionString, pipeline);
}

/** The fields that Azure's portal and Azurite write: AccountName, AccountKey or SharedAccessSignature, BlobEndpoint or a suffix. */
function fromConnectionString(
  text: string,
  pipeline: (credential: Parameters<typeof newPipeline>[0]) => Pipeline,
): BlobServiceClient {
  const fields = new Map<string, string>();
  for (const part of text.trim().split(';')) {
    const equals = part.indexOf('=');
    if (equals > 0) fields.set(part.slice(0, equals).trim().toLowerCase(), part.slice(equals + 1));
  }
  const account = fields.get('accountname');
  const protocol = fields.get('defaultendpointsprotocol') ?? 'https';
  const suffix = fields.get('endpointsuffix') ?? 'core.windows.net';
  const endpoint =
    fields.get('blobendpoint') ?? (account && `${protocol}://${account}.blob.${suffix}`);
  if (endpoint === undefined || endpoint === '')
    throw new VaultAccessError('the connection string names no BlobEndpoint and no AccountName');
  const signature = fields.get('sharedaccesssignature');
  if (signature !== undefined)
    return new BlobServiceClient(
      `${endpointOf(endpoint)}?${signature.replace(/^\?/, '')}`,
      pipeline(new AnonymousCredential()),
    );
  const key = fields.get('accountkey');
  if (account === undefined || key === undefined || Buffer.from(key, 'base64').length === 0)
    throw new VaultAccessError(
      'the connection string has no AccountName and AccountKey, and no SharedAccessSignature',
    );
  return new BlobServiceClient(
    endpointOf(endpoint),
    pipeline(new StorageSharedKeyCredential(account, key)),
  );
}

function endpointOf(text: string): string {
  if (!URL.canParse(text) || !/^https?:/.test(text))
    throw new VaultAccessError('the blob endpoint is not an http(s) URL');
  return text.replace(/\/+$/, '');
}
