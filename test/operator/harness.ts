/** An operator in this process, over any KubeClient and any stores, with what people and machines around it would do. */
import { createHash } from 'node:crypto';
import type { Decided } from '../../controllers/decisions.ts';
import type { VaultConnection, VaultStores } from '../../controllers/openvaults/stores.ts';
import {
  API_GROUP_VERSION,
  type Failover,
  farshoreTypes,
  type ProcessServer,
  type ProtectedVM,
  type RecoveryVault,
  type ReplicationPolicy,
} from '../../crds/index.ts';
import { Operator, type OperatorDeps } from '../../operator/operator.ts';
import {
  type Condition,
  type KubeClient,
  type KubeObject,
  kubeTypes,
  type ObjectName,
  type ResourceType,
  type SecretObject,
} from '../../platform/kubernetes.ts';
import { systemClock } from '../../platform/node/clock.ts';
import { systemRandom } from '../../platform/node/random.ts';
import type { Logger, ObjectStore } from '../../platform/ports.ts';
import { createCertificateRequest } from '../../vault/authority.ts';
import { type Bootstrap, decodeBootstrap } from '../../vault/bootstrap.ts';
import { trustedControllers } from '../../vault/controllerTrust.ts';
import {
  type AssignmentsDocument,
  assignmentsDocumentSchema,
  decodeDocument,
  type EnrolmentAnswer,
  encodeDocument,
  enrolmentAnswerSchema,
  enrolmentRequestSchema,
  type MachineStatus,
  type ProcessServerStatus,
  processServerStatusSchema,
} from '../../vault/documents.ts';
import {
  agentRequestMac,
  passphraseKey,
  tokenKey,
  tokenRequestMac,
} from '../../vault/enrolmentProof.ts';
import { encodePublicKey, generateBoxKey } from '../../vault/keys.ts';
import { vaultLayout } from '../../vault/layout.ts';
import { openSigned } from '../../vault/signing.ts';
import { requireVault } from '../../vault/vault.ts';

export const PASSPHRASE = 'correct horse battery staple';
const PATIENCE_MS = 12_000;

export interface RunningOperator {
  operator: Operator;
  stop(): Promise<void>;
}

export function startOperator(options: {
  kube: KubeClient;
  stores: (connection: VaultConnection) => VaultStores;
  log: Logger;
  /** The operator's own. */
  namespace?: string;
  watchNamespace?: string;
  holder?: string;
  leaderElect?: boolean;
  runFailover?: OperatorDeps['runFailover'];
}): RunningOperator {
  const { kube, stores, log, namespace = 'default', holder = 'test cluster' } = options;
  const operator = new Operator(
    {
      kube,
      clock: systemClock,
      random: systemRandom,
      log,
      makeStores: async (connection) => stores(connection),
      ...(options.runFailover === undefined ? {} : { runFailover: options.runFailover }),
    },
    {
      operatorNamespace: namespace,
      watchNamespace: options.watchNamespace,
      identity: `operator-${systemRandom.bytes(4).join('')}`,
      holder,
      leaderElect: options.leaderElect ?? false,
      intervals: { pollMs: 100, pointsMs: 300, targetMs: 500 },
      stepPollMs: 20,
      statusIntervalMs: 200,
    },
  );
  const abort = new AbortController();
  const ended = operator.run(abort.signal);
  return {
    operator,
    stop: async () => {
      abort.abort(new Error('the test stops the operator'));
      await ended;
    },
  };
}

// ---------------------------------------------------------------------------------------------------------------- resources

export function secret(name: string, data: Record<string, string>, namespace = 'default') {
  return {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name, namespace },
    data: Object.fromEntries(
      Object.entries(data).map(([key, value]) => [key, Buffer.from(value).toString('base64')]),
    ),
  } satisfies SecretObject;
}

export function recoveryVault(options: {
  recipients: string[];
  name?: string;
  spec?: Partial<RecoveryVault['spec']>;
}): RecoveryVault {
  return {
    apiVersion: API_GROUP_VERSION,
    kind: 'RecoveryVault',
    metadata: { name: options.name ?? 'vault', namespace: 'default' },
    spec: {
      cloud: { type: 'AzurePublic' },
      storageAccount: {
        name: 'farshore',
        resourceId:
          '/subscriptions/s/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/farshore',
      },
      containerName: 'vault',
      prefix: '',
      credentials: {
        servicePrincipal: {
          tenantId: 'tenant',
          clientId: 'client',
          clientSecretRef: { name: 'azure', key: 'clientSecret' },
        },
        storage: { connectionStringSecretRef: { name: 'azure', key: 'connectionString' } },
      },
      recoveryRecipients: options.recipients,
      subscriptionId: '00000000-0000-0000-0000-000000000000',
      resourceGroup: 'recovery',
      location: 'westeurope',
      networks: {
        production: { network: 'production', subnet: 'default' },
        test: { network: 'test', subnet: 'default' },
      },
      ...options.spec,
    },
  };
}

export function replicationPolicy(name = 'policy', namespace = 'default'): ReplicationPolicy {
  return {
    apiVersion: API_GROUP_VERSION,
    kind: 'ReplicationPolicy',
    metadata: { name, namespace },
    spec: { rpoThreshold: '15m', crashConsistentInterval: '60s', retention: '24h' },
  };
}

export function processServer(
  name = 'ps',
  spec: Partial<ProcessServer['spec']> = {},
  namespace = 'default',
): ProcessServer {
  return {
    apiVersion: API_GROUP_VERSION,
    kind: 'ProcessServer',
    metadata: { name, namespace },
    spec: {
      mode: 'External',
      replicas: 1,
      port: 9443,
      exposure: { endpoints: ['ps.example:9443', '[2001:db8::1]:9443'] },
      passphraseSecretRef: { name: 'passphrase', key: 'passphrase' },
      vaultRef: { name: 'vault' },
      ...spec,
    },
  };
}

export function protectedVM(
  name = 'web',
  spec: Partial<ProtectedVM['spec']> = {},
  namespace = 'default',
): ProtectedVM {
  return {
    apiVersion: API_GROUP_VERSION,
    kind: 'ProtectedVM',
    metadata: { name, namespace },
    spec: {
      source: { agent: {} },
      policyRef: { name: 'policy' },
      vaultRef: { name: 'vault' },
      processServerRef: { name: 'ps' },
      disks: [{ name: 'system', device: '/dev/sda' }],
      target: {
        name,
        size: 'Standard_B2s',
        generation: 'V1',
        diskType: 'StandardSSD_LRS',
        nics: [{}],
      },
      paused: false,
      ...spec,
    },
  };
}

export function failover(
  name: string,
  spec: Partial<Failover['spec']> = {},
  namespace = 'default',
): Failover {
  return {
    apiVersion: API_GROUP_VERSION,
    kind: 'Failover',
    metadata: { name, namespace },
    spec: {
      type: 'Unplanned',
      machineRef: { name: 'web' },
      recoveryPoint: { type: 'Latest' },
      verify: 'Full',
      ...spec,
    },
  };
}

const typesByKind: Record<string, ResourceType> = {
  ...Object.fromEntries(Object.values(farshoreTypes).map((type) => [type.kind, type])),
  Secret: kubeTypes.secret,
};

export async function create(kube: KubeClient, ...objects: KubeObject[]): Promise<void> {
  for (const object of objects) {
    const type = typesByKind[object.kind];
    if (type === undefined) throw new TypeError(object.kind);
    await kube.create(type, structuredClone(object));
  }
}

/** Waits until what `look` finds satisfies everything; its last assertion error is the failure. */
export async function eventually<T>(look: () => Promise<T> | T): Promise<T> {
  const until = systemClock.monotonic() + PATIENCE_MS;
  for (;;) {
    try {
      return await look();
    } catch (error) {
      if (systemClock.monotonic() > until) throw error;
      await systemClock.sleep(25);
    }
  }
}

/** Waits for a condition; returns it. */
export async function untilCondition(
  kube: KubeClient,
  type: ResourceType,
  name: ObjectName,
  wanted: Partial<Decided> & { type: string },
): Promise<Condition> {
  return await eventually(async () => {
    const object = await kube.get<KubeObject & { status?: { conditions?: Condition[] } }>(
      type,
      name,
    );
    const found = object?.status?.conditions?.find((one) => one.type === wanted.type);
    for (const [field, value] of Object.entries(wanted))
      if (found?.[field as keyof Decided] !== value)
        throw new Error(
          `${type.kind} ${name.name}: ${wanted.type} is ${JSON.stringify(found)}, not ${JSON.stringify(wanted)}; all: ${JSON.stringify(object?.status?.conditions?.map((one) => `${one.type}=${one.status}/${one.reason}`))}`,
        );
    return found as Condition;
  });
}

export function named(name: string, namespace = 'default'): { namespace: string; name: string } {
  return { namespace, name };
}

// ------------------------------------------------------------------------------------------------------------ scripted peers

export async function bootstrapOf(
  kube: KubeClient,
  secretName: string,
  namespace = 'default',
): Promise<Bootstrap> {
  return await eventually(async () => {
    const found = await kube.get<SecretObject>(kubeTypes.secret, { namespace, name: secretName });
    const text = found?.data?.['bootstrap.json'];
    if (text === undefined) throw new Error(`Secret ${secretName} is not there yet`);
    return decodeBootstrap(Buffer.from(text, 'base64').toString());
  });
}

export async function awaitAnswer(objects: ObjectStore, id: string): Promise<EnrolmentAnswer> {
  const key = vaultLayout.enrolmentAnswer(id);
  return await eventually(async () => {
    const stored = await objects.get(key);
    if (stored === undefined) throw new Error(`enrolment ${id} is not answered yet`);
    return decodeDocument(enrolmentAnswerSchema, key, stored.body);
  });
}

/** Asks as a process server or applier does. */
export async function askWithToken(
  objects: ObjectStore,
  bootstrap: Bootstrap,
  options: { kind?: 'processserver' | 'applier'; name?: string } = {},
) {
  const { kind = 'processserver', name = bootstrap.name } = options;
  const request = await createCertificateRequest({ random: systemRandom }, { commonName: name });
  const box = generateBoxKey(systemRandom);
  const key = tokenKey(bootstrap.token);
  const encryptionKey = encodePublicKey(box.publicKey);
  const id = createHash('sha256').update(request.csrDer).digest('hex');
  await objects.putIfAbsent(
    vaultLayout.enrolment(id),
    encodeDocument(enrolmentRequestSchema, {
      kind,
      name,
      requestedAt: systemClock.now(),
      csrPem: request.csrPem,
      tokenMac: tokenRequestMac({ key, csrDer: request.csrDer, name, encryptionKey }),
      encryptionKey,
    }),
  );
  return { id, key, box, request };
}

/** Asks as an agent does, through a process server. */
export async function askAsAgent(
  objects: ObjectStore,
  options: { name: string; via: string; passphrase?: string },
) {
  const { name, via, passphrase = PASSPHRASE } = options;
  const request = await createCertificateRequest({ random: systemRandom }, { commonName: name });
  const nonce = Buffer.from(systemRandom.bytes(32)).toString('hex');
  const key = passphraseKey({ passphrase, nonce });
  const id = createHash('sha256').update(request.csrDer).digest('hex');
  await objects.putIfAbsent(
    vaultLayout.enrolment(id),
    encodeDocument(enrolmentRequestSchema, {
      kind: 'agent',
      name,
      via,
      requestedAt: systemClock.now(),
      csrPem: request.csrPem,
      proof: { nonce, mac: agentRequestMac({ key, csrDer: request.csrDer, name }) },
      disks: [{ device: '/dev/sda', sizeBytes: 8 << 20, description: 'a disk' }],
    }),
  );
  return { id, key, request };
}

/** The list as a process server accepts it: signed by a key that the pinned one vouches for. Undefined while there is none. */
export async function readList(
  objects: ObjectStore,
  options: { processServer: string; pinned: string },
): Promise<AssignmentsDocument | undefined> {
  const key = vaultLayout.assignments(options.processServer);
  const stored = await objects.get(key);
  if (stored === undefined) return undefined;
  const { document: vault } = await requireVault(objects);
  return openSigned({
    key,
    bytes: stored.body,
    schema: assignmentsDocumentSchema,
    trusted: trustedControllers({ vault, pinned: options.pinned }),
  }).document;
}

export async function reportStatus(
  objects: ObjectStore,
  name: string,
  machines: MachineStatus[] = [],
  change: Partial<ProcessServerStatus> = {},
): Promise<void> {
  const status: ProcessServerStatus = {
    name,
    version: '1.0.0',
    formatVersion: 1,
    heartbeatMs: systemClock.now(),
    clockOffsetMs: 0,
    cache: { totalBytes: 1000, freeBytes: 900 },
    throughput: { inBytesPerSecond: 10, outBytesPerSecond: 20 },
    endpoints: ['ps.example:9443'],
    machines,
    ...change,
  };
  await objects.put(
    vaultLayout.processServerStatus(name),
    encodeDocument(processServerStatusSchema, status),
  );
}

export function machineReport(
  machineId: string,
  change: Partial<MachineStatus> = {},
): MachineStatus {
  return {
    machineId,
    writerEpoch: 1,
    agent: { connected: true, lastSeenMs: systemClock.now(), version: '1.0.0', hostname: 'web' },
    disks: [{ index: 0, sizeBytes: 8 << 20 }],
    positions: { capturedLsn: 30n, journaledLsn: 20n, uploadedLsn: 10n },
    barriers: { count: 1, voided: 0, lastFreezeMs: 12.5, maxFreezeMs: 40.1 },
    backlog: { agentBytes: 4096, cacheBytes: 8192 },
    errors: [],
    ...change,
  };
}
