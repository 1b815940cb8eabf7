/** The sample manifests of docs/examples, with this site's names, addresses and secrets put in. */
import { execFileSync } from 'node:child_process';
import { globSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { parseAllDocuments, stringify } from 'yaml';
import type {
  Failover,
  ProcessServer,
  ProtectedVM,
  RecoveryVault,
  ReplicationPolicy,
} from '../../crds/index.ts';
import type { Cloud } from './cloud.ts';
import type { SourceDisk } from './source.ts';

const root = path.resolve(import.meta.dirname, '../..');
const examples = path.join(root, 'docs/examples');

export const NAMESPACE = 'farshore-demo';
export const MACHINE = 'shop';
export const PROCESS_SERVER = 'branch';
export const VAULT = 'west-europe';
export const FAILOVER = 'shop-disaster';

type Manifest = { kind: string; metadata: { name: string } } & Record<string, unknown>;

export interface Site {
  cloud: Cloud;
  recoveryRecipient: string;
  passphrase: string;
  processServerPort: number;
}

export function installCrds(cloud: Cloud): void {
  const files = globSync('crds/*.yaml', { cwd: root }).flatMap((file) => [
    '-f',
    path.join(root, file),
  ]);
  cloud.kubernetes.kubectl(['apply', '--server-side', ...files]);
  cloud.kubernetes.kubectl(['wait', '--for=condition=Established', '--timeout=60s', ...files]);
}

/** Namespace, secrets, vault, policy and process server: everything but the machine. */
export function applySite(site: Site): void {
  const { cloud } = site;
  apply(cloud, [
    ...read('namespace.yaml'),
    ...secrets(site),
    vault(site),
    policy(),
    processServer(site),
  ]);
}

export function applyMachine(cloud: Cloud, disks: readonly SourceDisk[]): void {
  const [machine] = read('protectedvm.yaml') as unknown as [ProtectedVM];
  machine.spec.disks = disks.map(({ name, device }) => ({ name, device }));
  apply(cloud, [machine]);
}

export function applyFailover(cloud: Cloud, options: { saysWhatItRecovered: boolean }): void {
  const [failover] = read('failover-unplanned.yaml') as unknown as [Failover];
  if (options.saysWhatItRecovered)
    failover.spec.healthCheck = {
      serialConsole: { contains: 'FARSHORE-RECOVERED', timeout: '5m' },
    };
  apply(cloud, [failover]);
}

/** The value of one key of a Secret; undefined while there is none. */
export function secretValue(cloud: Cloud, name: string, key: string): string | undefined {
  try {
    const json = cloud.kubernetes.kubectl(['get', 'secret', name, '-n', NAMESPACE, '-o', 'json']);
    const data = (JSON.parse(json) as { data?: Record<string, string> }).data?.[key];
    return data === undefined ? undefined : Buffer.from(data, 'base64').toString('utf8');
  } catch {
    return undefined;
  }
}

export function makeRecoveryKey(file: string): string {
  return execFileSync(process.execPath, [path.join(root, 'cli/main.ts'), 'keygen', '--out', file], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  }).trim();
}

function secrets(site: Site): Manifest[] {
  const values: Record<string, string> = {
    'azure-credentials': site.cloud.arm.clientSecret,
    'vault-storage': site.cloud.azurite.connectionString,
    'enrolment-passphrase': site.passphrase,
  };
  return read('secrets.yaml').map((secret) => {
    const [key = ''] = Object.keys(secret.stringData as object);
    return { ...secret, stringData: { [key]: values[secret.metadata.name] ?? '' } };
  });
}

function vault(site: Site): Manifest {
  const { cloud } = site;
  const [manifest] = read('recoveryvault-custom-cloud.yaml') as unknown as [RecoveryVault];
  manifest.metadata.name = VAULT;
  const { spec } = manifest;
  spec.cloud.custom = {
    resourceManagerEndpoint: cloud.arm.url,
    loginEndpoint: cloud.arm.url,
    blobEndpoint: cloud.azurite.blobEndpoint,
    disableInstanceDiscovery: true,
    caBundle: cloud.arm.ca,
  };
  spec.storageAccount = { name: cloud.azurite.accountName, resourceId: cloud.storageAccountId };
  spec.containerName = cloud.container;
  if (spec.credentials.servicePrincipal !== undefined) {
    spec.credentials.servicePrincipal.tenantId = cloud.arm.tenantId;
    spec.credentials.servicePrincipal.clientId = cloud.arm.clientId;
  }
  spec.recoveryRecipients = [site.recoveryRecipient];
  spec.subscriptionId = cloud.arm.subscriptionId;
  spec.resourceGroup = cloud.resourceGroup;
  spec.location = cloud.location;
  return manifest as unknown as Manifest;
}

function policy(): Manifest {
  const [manifest] = read('replicationpolicy.yaml') as unknown as [ReplicationPolicy];
  return manifest as unknown as Manifest;
}

function processServer(site: Site): Manifest {
  const [manifest] = read('processserver-external.yaml') as unknown as [ProcessServer];
  manifest.spec.port = site.processServerPort;
  manifest.spec.exposure = { endpoints: [`127.0.0.1:${site.processServerPort}`] };
  return manifest as unknown as Manifest;
}

function read(file: string): Manifest[] {
  return parseAllDocuments(readFileSync(path.join(examples, file), 'utf8')).map(
    (document) => document.toJS() as Manifest,
  );
}

function apply(cloud: Cloud, manifests: readonly unknown[]): void {
  const input = manifests.map((manifest) => stringify(manifest)).join('---\n');
  cloud.kubernetes.kubectl(['apply', '-f', '-'], { input });
}
