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
import { sizeFor } from './targetSize.ts';

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
  /** host:port of each replica of a process server that has several; left out: one, outside the cluster, on this machine. */
  replicas?: readonly string[];
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
    vault(site, read('recoveryvault-custom-cloud.yaml')),
    policy(),
    processServer(site),
  ]);
}

/**
 * The same in a fresh cluster after the first one is lost: the vault is opened with a recovery key's private half, and control is
 * taken from the epoch that the lost cluster had.
 */
export function applyTakeover(
  site: Site,
  takeover: { recoveryKey: string; fromEpoch: number },
): void {
  const { cloud } = site;
  const [key, manifest] = read('recoveryvault-takeover.yaml') as [Manifest, Manifest];
  const taking = vault(site, [manifest]) as unknown as RecoveryVault;
  taking.spec.takeControlFromEpoch = takeover.fromEpoch;
  apply(cloud, [
    ...read('namespace.yaml'),
    ...secrets(site),
    { ...key, stringData: { privateKey: takeover.recoveryKey } },
    taking,
    policy(),
    processServer(site),
  ]);
}

export function applyMachine(
  cloud: Cloud,
  disks: readonly Pick<SourceDisk, 'name' | 'device'>[],
  change: { name?: string; target?: Partial<ProtectedVM['spec']['target']> } = {},
): void {
  const [machine] = read('protectedvm.yaml') as unknown as [ProtectedVM];
  machine.metadata.name = change.name ?? MACHINE;
  machine.spec.target.size = sizeFor(disks.length, machine.spec.target.size);
  Object.assign(machine.spec.target, { name: machine.metadata.name }, change.target);
  machine.spec.disks = disks.map(({ name, device }) => ({ name, device }));
  apply(cloud, [machine]);
}

export interface FailoverWish {
  /** Which of the samples it is made from. */
  type: Failover['spec']['type'];
  name: string;
  machine?: string;
  spec?: Partial<Failover['spec']>;
}

export function failoverManifest(wish: FailoverWish): Failover {
  const [failover] = read(`failover-${wish.type.toLowerCase()}.yaml`) as unknown as [Failover];
  failover.metadata.name = wish.name;
  // The sample's waits for a login prompt, which is not what our small Linux says.
  delete failover.spec.healthCheck;
  Object.assign(failover.spec, { machineRef: { name: wish.machine ?? MACHINE } }, wish.spec);
  return failover;
}

/** What the machine that we build says on its serial console once it has checked its records. */
export const RECOVERED = 'FARSHORE-RECOVERED';

export function applyFailover(
  cloud: Cloud,
  options: { saysWhatItRecovered: boolean; bootTimeout: string },
): void {
  const serialConsole = { contains: RECOVERED, timeout: options.bootTimeout };
  const spec = options.saysWhatItRecovered ? { healthCheck: { serialConsole } } : {};
  apply(cloud, [failoverManifest({ type: 'Unplanned', name: FAILOVER, spec })]);
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

function vault(site: Site, sample: readonly Manifest[]): Manifest {
  const { cloud } = site;
  const [manifest] = sample as unknown as [RecoveryVault];
  manifest.metadata.name = VAULT;
  const { spec } = manifest;
  spec.cloud = {
    type: 'Custom',
    custom: {
      resourceManagerEndpoint: cloud.arm.url,
      loginEndpoint: cloud.arm.url,
      blobEndpoint: cloud.azurite.blobEndpoint,
      disableInstanceDiscovery: true,
      caBundle: cloud.arm.ca,
    },
  };
  spec.credentials.storage = {
    connectionStringSecretRef: { name: 'vault-storage', key: 'connectionString' },
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
  if (site.replicas !== undefined) return processServerOf(site, site.replicas);
  const [manifest] = read('processserver-external.yaml') as unknown as [ProcessServer];
  manifest.spec.port = site.processServerPort;
  manifest.spec.exposure = { endpoints: [`127.0.0.1:${site.processServerPort}`] };
  return manifest as unknown as Manifest;
}

function processServerOf(site: Site, replicas: readonly string[]): Manifest {
  const [manifest] = read('processserver-statefulset.yaml') as unknown as [ProcessServer];
  manifest.metadata.name = PROCESS_SERVER;
  manifest.spec.port = site.processServerPort;
  manifest.spec.replicas = replicas.length;
  manifest.spec.exposure = { endpoints: [...replicas] };
  return manifest as unknown as Manifest;
}

function read(file: string): Manifest[] {
  return parseAllDocuments(readFileSync(path.join(examples, file), 'utf8')).map(
    (document) => document.toJS() as Manifest,
  );
}

export function apply(cloud: Cloud, manifests: readonly unknown[]): void {
  const input = manifests.map((manifest) => stringify(manifest)).join('---\n');
  cloud.kubernetes.kubectl(['apply', '-f', '-'], { input });
}
