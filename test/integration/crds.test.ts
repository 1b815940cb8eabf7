/**
 * The CRDs on a real API server: they install, the samples pass, defaults are as documented, and everything that CEL or the
 * schema refuses is refused with the words that people will read.
 */
import { globSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { parse, parseAllDocuments } from 'yaml';
import {
  API_GROUP_VERSION,
  type Failover,
  farshoreTypes,
  type ProcessServer,
  type ProtectedVM,
  type RecoveryVault,
  type ReplicationPolicy,
} from '../../crds/index.ts';
import { connectKubernetes, type HttpKubeClient } from '../../platform/kube/client.ts';
import {
  isKubeError,
  type KubeObject,
  kubeTypes,
  type ResourceType,
} from '../../platform/kubernetes.ts';
import { type KubernetesServer, startKubernetes } from '../servers/kubernetes.ts';

type Loose = KubeObject & { spec: Record<string, unknown> };
type Edit = (spec: Spec) => void;
// biome-ignore lint/suspicious/noExplicitAny: tests break every field of every spec, also into what types forbid
type Spec = any;

const root = path.resolve(import.meta.dirname, '../..');
const examples = path.join(root, 'docs/examples');
const namespace = 'crds';
let server: KubernetesServer;
let client: HttpKubeClient;
let count = 0;

beforeAll(async () => {
  server = await startKubernetes();
  client = connectKubernetes({ kubeconfig: server.kubeconfigPath });
  server.kubectl(['apply', '--server-side', '-f', path.join(root, 'crds')]);
  server.kubectl(['wait', '--for=condition=Established', 'crd', '--all', '--timeout=30s']);
  server.kubectl(['create', 'namespace', namespace]);
  server.kubectl(['create', 'namespace', 'farshore-demo']);
});

afterAll(async () => {
  client?.close();
  await server?.stop();
});

beforeEach(() => {
  count += 1;
});

describe('the CRDs', () => {
  it('have structural schemas that the API server accepts without a complaint', async () => {
    for (const type of Object.values(farshoreTypes)) {
      const crd = await client.get<
        Loose & { status: { conditions: { type: string; status: string }[] } }
      >(kubeTypes.customResourceDefinition, { name: `${type.plural}.farshore.dev` });
      const conditions = Object.fromEntries(
        crd?.status.conditions.map((c) => [c.type, c.status]) ?? [],
      );
      expect(conditions).toMatchObject({ NamesAccepted: 'True', Established: 'True' });
      expect(conditions.NonStructuralSchema ?? 'False').toBe('False');
    }
  });

  it('are found together as `farshore`, and each by its short name', async () => {
    for (const name of ['farshore', 'rvault', 'rpolicy', 'pvm', 'pserver', 'fo'])
      await eventually(() => server.kubectl(['get', name, '-n', namespace]));
  });

  it('explain their fields to kubectl', async () => {
    const explained = await eventually(() =>
      server.kubectl(['explain', 'failover.spec.desiredState']),
    );
    expect(explained).toContain('It only goes forward');
  });
});

describe('the samples', () => {
  it.each(globSync('*.yaml', { cwd: examples }).sort())(
    '%s is valid and names only fields that exist',
    (file) => {
      const flags = ['--server-side', '--validate=strict', '--dry-run=server'];
      server.kubectl(['apply', ...flags, '-f', path.join(examples, file)]);
    },
  );
});

describe('defaults', () => {
  it('of a ReplicationPolicy are those that the documentation promises', async () => {
    const policy = await create<ReplicationPolicy>(farshoreTypes.replicationPolicy, {});
    expect(policy.spec).toEqual({
      rpoThreshold: '15m',
      crashConsistentInterval: '60s',
      retention: '24h',
    });
  });

  it('of a RecoveryVault', async () => {
    const vault = await create<RecoveryVault>(farshoreTypes.recoveryVault, vaultSpec());
    expect(vault.spec.cloud).toEqual({ type: 'AzurePublic' });
    expect(vault.spec.prefix).toBe('');
  });

  it('of a ProcessServer', async () => {
    const processServer = await create<ProcessServer>(farshoreTypes.processServer, serverSpec());
    expect(processServer.spec).toMatchObject({ mode: 'StatefulSet', replicas: 1, port: 9443 });
  });

  it('of a ProtectedVM', async () => {
    const machine = await create<ProtectedVM>(farshoreTypes.protectedVM, machineSpec());
    expect(machine.spec.paused).toBe(false);
    expect(machine.spec.target).toEqual({
      name: 'shop',
      size: 'Standard_D2s_v5',
      generation: 'V1',
      diskType: 'StandardSSD_LRS',
      nics: [{}],
    });
  });

  it('of a Failover', async () => {
    const failover = await create<Failover>(farshoreTypes.failover, failoverSpec());
    expect(failover.spec).toEqual({
      type: 'Unplanned',
      machineRef: { name: 'shop' },
      recoveryPoint: { type: 'Latest' },
      verify: 'Full',
    });
  });

  it('leave it to a person to say what becomes of a failover', async () => {
    const failover = await create<Failover>(farshoreTypes.failover, failoverSpec());
    expect(failover.spec.desiredState).toBeUndefined();
  });
});

describe('a RecoveryVault is refused', () => {
  const refuses = refusals(farshoreTypes.recoveryVault, vaultSpec);
  it.each<[string, Edit, RegExp]>([
    [
      'a Custom cloud without endpoints',
      (s) => {
        s.cloud = { type: 'Custom' };
      },
      /cloud\.custom holds the endpoints of a cloud of type Custom/,
    ],
    [
      'endpoints for a cloud that has its own',
      (s) => {
        s.cloud = { type: 'AzureChina', custom: customCloud() };
      },
      /cloud\.custom holds the endpoints of a cloud of type Custom/,
    ],
    [
      'an unknown cloud',
      (s) => {
        s.cloud = { type: 'AzureGermany' };
      },
      /supported values: "AzurePublic", "AzureUSGovernment", "AzureChina", "Custom"/,
    ],
    [
      'a Resource Manager without TLS',
      (s) => {
        s.cloud = {
          type: 'Custom',
          custom: { ...customCloud(), resourceManagerEndpoint: 'http://arm' },
        };
      },
      /resourceManagerEndpoint.*should match/,
    ],
    [
      'a CA bundle that is no PEM',
      (s) => {
        s.cloud = { type: 'Custom', custom: { ...customCloud(), caBundle: 'MIIB' } };
      },
      /caBundle.*should match/,
    ],
    [
      'an account whose id is another account’s',
      (s) => {
        s.storageAccount.name = 'other';
      },
      /storageAccount\.resourceId must be the id of the account that storageAccount\.name names/,
    ],
    [
      'no credentials',
      (s) => {
        s.credentials = {};
      },
      /credentials\.servicePrincipal: Required value/,
    ],
    [
      'no recovery recipients',
      (s) => {
        s.recoveryRecipients = [];
      },
      /should have at least 1 items/,
    ],
    [
      'one recipient twice',
      (s) => {
        s.recoveryRecipients = [recipient, recipient];
      },
      /Duplicate value/,
    ],
    [
      'a private recovery key',
      (s) => {
        s.recoveryRecipients = ['farshore-recovery-private-abc'];
      },
      /This is a private recovery key/,
    ],
    [
      'something that is no recovery key',
      (s) => {
        s.recoveryRecipients = ['age1xyz'];
      },
      /the public half of a recovery key/,
    ],
    [
      'a test network that is the production network',
      (s) => {
        s.networks.test = s.networks.production;
      },
      /networks\.test must differ from networks\.production/,
    ],
    [
      'a test subnet that is the production subnet by another way of writing',
      (s) => {
        s.networks.production.resourceGroup = 'net';
        s.networks.test = { ...s.networks.production };
      },
      /networks\.test must differ/,
    ],
    [
      'a prefix with slashes around it',
      (s) => {
        s.prefix = '/a/';
      },
      /spec\.prefix.*should match/,
    ],
    [
      'epoch 0',
      (s) => {
        s.takeControlFromEpoch = 0;
      },
      /should be greater than or equal to 1/,
    ],
  ])('with %s', async (_, edit, message) => refuses(edit, message));

  const changes = changesRefused(farshoreTypes.recoveryVault, vaultSpec);
  it.each<[string, Edit, RegExp]>([
    [
      'the container',
      (s) => {
        s.containerName = 'other';
      },
      /A vault's place .* can't change/,
    ],
    [
      'the prefix',
      (s) => {
        s.prefix = 'other';
      },
      /A vault's place .* can't change/,
    ],
    [
      'the account',
      (s) => {
        s.storageAccount = {
          name: 'other',
          resourceId: s.storageAccount.resourceId.replace('farshorevault', 'other'),
        };
      },
      /A vault's place .* can't change/,
    ],
    [
      'its recipients',
      (s) => {
        s.recoveryRecipients.push(`${recipient}a`);
      },
      /recoveryRecipients can't change, because every key in the vault is sealed for these/,
    ],
  ])('a change of %s', async (_, edit, message) => changes(edit, message));

  it('but its networks, credentials and takeover may change', async () => {
    await changeAccepted(farshoreTypes.recoveryVault, vaultSpec, (s) => {
      s.networks.test.subnet = 'other';
      s.credentials.servicePrincipal.clientSecretRef.key = 'other';
      s.takeControlFromEpoch = 3;
      s.allowedNamespaces = ['shop'];
    });
  });
});

describe('a ReplicationPolicy is refused', () => {
  const refuses = refusals(farshoreTypes.replicationPolicy, () => ({}));
  it.each<[string, Edit, RegExp]>([
    [
      'a threshold below the interval',
      (s) => {
        s.rpoThreshold = '30s';
        s.crashConsistentInterval = '5m';
      },
      /rpoThreshold must not be shorter than crashConsistentInterval/,
    ],
    [
      'too short an interval',
      (s) => {
        s.crashConsistentInterval = '14s';
      },
      /crashConsistentInterval must be between 15s and 1h/,
    ],
    [
      'too long an interval',
      (s) => {
        s.crashConsistentInterval = '61m';
        s.rpoThreshold = '2h';
      },
      /crashConsistentInterval must be between 15s and 1h/,
    ],
    [
      'a threshold of days',
      (s) => {
        s.rpoThreshold = '361h';
      },
      /rpoThreshold must be between 15s and 360h/,
    ],
    [
      'too frequent app-consistent points',
      (s) => {
        s.appConsistentInterval = '59m';
      },
      /appConsistentInterval must be between 1h and 12h; leave it out/,
    ],
    [
      'too rare app-consistent points',
      (s) => {
        s.appConsistentInterval = '13h';
      },
      /appConsistentInterval must be between 1h and 12h/,
    ],
    [
      'retention no longer than the app-consistent interval',
      (s) => {
        s.appConsistentInterval = '2h';
        s.retention = '2h';
      },
      /appConsistentInterval must be shorter than retention/,
    ],
    [
      'retention above 15 days',
      (s) => {
        s.retention = '361h';
      },
      /retention must be between 1h and 360h \(15 days\)/,
    ],
    [
      'retention below an hour',
      (s) => {
        s.retention = '59m';
      },
      /retention must be between 1h and 360h/,
    ],
    [
      'hooks that would never run',
      (s) => {
        s.hooks = { directory: '/etc/hooks' };
      },
      /hooks run around app-consistent barriers alone/,
    ],
    [
      'hooks in no absolute directory',
      (s) => {
        s.appConsistentInterval = '1h';
        s.hooks = { directory: 'hooks' };
      },
      /hooks\.directory.*should match/,
    ],
    [
      'hooks that may take for ever',
      (s) => {
        s.appConsistentInterval = '1h';
        s.hooks = { directory: '/h', timeout: '11m' };
      },
      /hooks\.timeout must be between 1s and 10m/,
    ],
    [
      'a duration of two units',
      (s) => {
        s.retention = '1h30m';
      },
      /spec\.retention.*should match/,
    ],
    [
      'a duration without a unit',
      (s) => {
        s.rpoThreshold = '900';
      },
      /spec\.rpoThreshold.*should match/,
    ],
    [
      'a negative duration',
      (s) => {
        s.retention = '-1h';
      },
      /spec\.retention.*should match/,
    ],
  ])('with %s', async (_, edit, message) => refuses(edit, message));
});

describe('a ProtectedVM is refused', () => {
  const refuses = refusals(farshoreTypes.protectedVM, machineSpec);
  it.each<[string, Edit, RegExp]>([
    [
      'no source',
      (s) => {
        s.source = {};
      },
      /spec\.source\.agent: Required value/,
    ],
    [
      'no disks',
      (s) => {
        s.disks = [];
      },
      /spec\.disks.*should have at least 1 items/,
    ],
    [
      'two disks of one name',
      (s) => {
        s.disks[1].name = 'system';
      },
      /Duplicate value/,
    ],
    [
      'two disks of one device',
      (s) => {
        s.disks[1].device = s.disks[0].device;
      },
      /Each of the disks must have a device of its own/,
    ],
    [
      'a disk that is no device',
      (s) => {
        s.disks[0].device = '/etc/passwd';
      },
      /device.*should match/,
    ],
    [
      'a disk name that Azure would not take',
      (s) => {
        s.disks[0].name = 'System_1';
      },
      /name.*should match/,
    ],
    [
      'a nic with half a network',
      (s) => {
        s.target.nics = [{ network: 'recovery' }];
      },
      /A nic names both network and subnet, or neither/,
    ],
    [
      'a nic with a resource group of nothing',
      (s) => {
        s.target.nics = [{ resourceGroup: 'net' }];
      },
      /A nic's resourceGroup is that of its network/,
    ],
    [
      'no nics at all',
      (s) => {
        s.target.nics = [];
      },
      /nics.*should have at least 1 items/,
    ],
    [
      'an address that is none',
      (s) => {
        s.target.nics = [{ ip: '10.0.0.999' }];
      },
      /ip must be an IPv4 address/,
    ],
    [
      'an IPv6 address',
      (s) => {
        s.target.nics = [{ ip: 'fe80::1' }];
      },
      /ip must be an IPv4 address/,
    ],
    [
      'a tag of ours',
      (s) => {
        s.target.tags = { 'farshore-failover': 'x' };
      },
      /Tags that start with farshore are Farshore's own/,
    ],
    [
      'a tag that Azure refuses',
      (s) => {
        s.target.tags = { 'a/b': 'x' };
      },
      /none of < > % & \? \/ \\/,
    ],
    [
      'a generation that does not exist',
      (s) => {
        s.target.generation = 'V3';
      },
      /supported values: "V1", "V2"/,
    ],
    [
      'a disk type that does not exist',
      (s) => {
        s.target.diskType = 'Floppy';
      },
      /supported values: "Standard_LRS"/,
    ],
  ])('with %s', async (_, edit, message) => refuses(edit, message));

  const changes = changesRefused(farshoreTypes.protectedVM, machineSpec);
  it.each<[string, Edit, RegExp]>([
    [
      'its vault',
      (s) => {
        s.vaultRef.name = 'other';
      },
      /vaultRef can't change, because the machine's copy is in that vault/,
    ],
    [
      'its disks, one more',
      (s) => {
        s.disks.push({ name: 'more', device: '/dev/sdc' });
      },
      /disks can't be added, removed or renamed/,
    ],
    [
      'its disks, one less',
      (s) => {
        s.disks.pop();
      },
      /disks can't be added, removed or renamed/,
    ],
    [
      'a disk’s name',
      (s) => {
        s.disks[1].name = 'other';
      },
      /disks can't be added, removed or renamed/,
    ],
    [
      'which disk is first',
      (s) => {
        s.disks.reverse();
      },
      /nor may another become the first/,
    ],
  ])('a change of %s', async (_, edit, message) => changes(edit, message));

  it('but a device’s path, the policy, the process server and the target may change', async () => {
    await changeAccepted(farshoreTypes.protectedVM, machineSpec, (s) => {
      s.disks[0].device = '/dev/vda';
      s.policyRef.name = 'other';
      s.processServerRef.name = 'other';
      s.target.size = 'Standard_D4s_v5';
      s.paused = true;
      s.resyncRequest = { token: '2026-01-01' };
    });
  });

  it.each([
    ['a failover of it is active', { activeFailover: 'shop-test', activeSide: 'Source' }],
    ['it runs in Azure', { activeSide: 'Azure' }],
  ])('a change of its target while %s', async (_, status) => {
    const machine = await create<ProtectedVM>(farshoreTypes.protectedVM, machineSpec());
    const { name } = machine.metadata;
    await client.applyStatus(farshoreTypes.protectedVM, { ...identity(machine), status });
    const grow = () =>
      client.patch(
        farshoreTypes.protectedVM,
        { namespace, name },
        { merge: { spec: { target: { size: 'Standard_D4s_v5' } } } },
      );
    await expect(grow()).rejects.toThrow(
      /spec\.target can't change while a failover of the machine is active or the machine runs in Azure/,
    );
    await client.patch(
      farshoreTypes.protectedVM,
      { namespace, name },
      { merge: { spec: { paused: true } } },
    );
    await client.applyStatus(farshoreTypes.protectedVM, {
      ...identity(machine),
      status: { activeFailover: '', activeSide: 'Source' },
    });
    await grow();
  });

  it('under a name too long for a label', async () => {
    await expect(create(farshoreTypes.protectedVM, machineSpec(), 'm'.repeat(64))).rejects.toThrow(
      /at most 63 lower-case letters, digits and dashes/,
    );
  });

  it('under a name with dots', async () => {
    await expect(create(farshoreTypes.protectedVM, machineSpec(), 'shop.example')).rejects.toThrow(
      /The name of a ProtectedVM is used as a label and in the vault/,
    );
  });
});

describe('a ProcessServer is refused', () => {
  const refuses = refusals(farshoreTypes.processServer, serverSpec);
  const refusesExternal = refusals(farshoreTypes.processServer, externalSpec);
  it.each<[string, Edit, RegExp]>([
    [
      'a StatefulSet without a cache',
      (s) => {
        s.cache = undefined;
      },
      /mode StatefulSet needs cache and image/,
    ],
    [
      'a StatefulSet without an image',
      (s) => {
        s.image = undefined;
      },
      /mode StatefulSet needs cache and image/,
    ],
    [
      'fewer endpoints than replicas',
      (s) => {
        s.replicas = 2;
        s.exposure = { endpoints: ['a:1'] };
      },
      /exposure\.endpoints names one endpoint for each replica/,
    ],
    [
      'no replicas',
      (s) => {
        s.replicas = 0;
      },
      /should be greater than or equal to 1/,
    ],
    [
      'a port that is none',
      (s) => {
        s.port = 70000;
      },
      /should be less than or equal to 65535/,
    ],
    [
      'a cache size that is no size',
      (s) => {
        s.cache.size = 'large';
      },
      /cache\.size.*should match/,
    ],
    [
      'no vault',
      (s) => {
        s.vaultRef = undefined;
      },
      /spec\.vaultRef: Required value/,
    ],
    [
      'no passphrase',
      (s) => {
        s.passphraseSecretRef = undefined;
      },
      /spec\.passphraseSecretRef: Required value/,
    ],
    [
      'an unknown type of Service',
      (s) => {
        s.exposure = { serviceType: 'ExternalName' };
      },
      /supported values: "ClusterIP", "NodePort", "LoadBalancer"/,
    ],
    [
      'an endpoint without a port',
      (s) => {
        s.exposure = { endpoints: ['host'] };
      },
      /endpoints\[0\].*should match/,
    ],
  ])('with %s', async (_, edit, message) => refuses(edit, message));
  it.each<[string, Edit, RegExp]>([
    [
      'a cache',
      (s) => {
        s.cache = { size: '1Gi' };
      },
      /cache, image and resources belong to mode StatefulSet/,
    ],
    [
      'an image',
      (s) => {
        s.image = 'x';
      },
      /cache, image and resources belong to mode StatefulSet/,
    ],
    [
      'resources',
      (s) => {
        s.resources = { limits: { cpu: '1' } };
      },
      /cache, image and resources belong to mode StatefulSet/,
    ],
    [
      'replicas',
      (s) => {
        s.replicas = 2;
      },
      /An External process server is one host/,
    ],
    [
      'no endpoints',
      (s) => {
        s.exposure = undefined;
      },
      /An External process server needs exposure\.endpoints/,
    ],
    [
      'a Service',
      (s) => {
        s.exposure.serviceType = 'NodePort';
      },
      /no Service is made for an External process server/,
    ],
  ])('of mode External with %s', async (_, edit, message) => refusesExternal(edit, message));

  const changes = changesRefused(farshoreTypes.processServer, serverSpec);
  it.each<[string, Edit, RegExp]>([
    [
      'its mode',
      (s) => {
        Object.assign(s, externalSpec(), { cache: undefined, image: undefined });
      },
      /mode can't change/,
    ],
    [
      'its vault',
      (s) => {
        s.vaultRef.name = 'other';
      },
      /vaultRef can't change\. Create another ProcessServer/,
    ],
    [
      'its cache’s size, downwards',
      (s) => {
        s.cache.size = '199Gi';
      },
      /cache\.size can only grow/,
    ],
    [
      'its storage class',
      (s) => {
        s.cache.storageClassName = 'slow';
      },
      /cache\.storageClassName can't change/,
    ],
    [
      'having a storage class',
      (s) => {
        s.cache.storageClassName = undefined;
      },
      /cache\.storageClassName can't be set or removed later/,
    ],
  ])('a change of %s', async (_, edit, message) => changes(edit, message));

  it('but its cache may grow, across units too', async () => {
    await changeAccepted(farshoreTypes.processServer, serverSpec, (s) => {
      s.cache.size = '1Ti';
    });
  });

  it('can be scaled', async () => {
    const processServer = await create<ProcessServer>(farshoreTypes.processServer, serverSpec());
    server.kubectl([
      'scale',
      '-n',
      namespace,
      `pserver/${processServer.metadata.name}`,
      '--replicas=3',
    ]);
    const after = await client.get<ProcessServer>(
      farshoreTypes.processServer,
      processServer.metadata,
    );
    expect(after?.spec.replicas).toBe(3);
  });

  it('under a name that no Service could have', async () => {
    await expect(create(farshoreTypes.processServer, serverSpec(), '1st')).rejects.toThrow(
      /at most 45 lower-case letters, digits and dashes, a letter first/,
    );
    await expect(create(farshoreTypes.processServer, serverSpec(), 'p'.repeat(46))).rejects.toThrow(
      /at most 45/,
    );
  });
});

describe('a Failover is refused', () => {
  const refuses = refusals(farshoreTypes.failover, failoverSpec);
  it.each<[string, Edit, RegExp]>([
    [
      'no type',
      (s) => {
        s.type = undefined;
      },
      /spec\.type: Required value/,
    ],
    [
      'an unknown type',
      (s) => {
        s.type = 'Rehearsal';
      },
      /supported values: "Test", "Planned", "Unplanned"/,
    ],
    [
      'type Time without a time',
      (s) => {
        s.recoveryPoint = { type: 'Time' };
      },
      /recoveryPoint\.time goes with type Time/,
    ],
    [
      'a time without type Time',
      (s) => {
        s.recoveryPoint = { time: '2026-01-01T00:00:00Z' };
      },
      /recoveryPoint\.time goes with type Time/,
    ],
    [
      'type Name without a name',
      (s) => {
        s.recoveryPoint = { type: 'Name' };
      },
      /recoveryPoint\.name goes with type Name/,
    ],
    [
      'a name without type Name',
      (s) => {
        s.recoveryPoint = { type: 'Latest', name: '7' };
      },
      /recoveryPoint\.name goes with type Name/,
    ],
    [
      'a time that is none',
      (s) => {
        s.recoveryPoint = { type: 'Time', time: 'yesterday' };
      },
      /recoveryPoint\.time.*date-time/,
    ],
    [
      'a Planned failover to an older point',
      (s) => {
        s.type = 'Planned';
        s.recoveryPoint = { type: 'LatestProcessed' };
      },
      /A Planned failover recovers the last barrier, which it makes itself/,
    ],
    [
      'powering off the source of an Unplanned one',
      (s) => {
        s.powerOffSource = true;
      },
      /powerOffSource belongs to Planned failovers/,
    ],
    [
      'committing a Test',
      (s) => {
        s.type = 'Test';
        s.desiredState = 'Committed';
      },
      /A Test failover can't be committed/,
    ],
    [
      'cleaning up production',
      (s) => {
        s.desiredState = 'CleanedUp';
      },
      /Only a Test failover can be cleaned up/,
    ],
    [
      'an unknown desired state',
      (s) => {
        s.desiredState = 'RolledBack';
      },
      /supported values: "Committed", "CleanedUp"/,
    ],
    [
      'a health check of nothing',
      (s) => {
        s.healthCheck = {};
      },
      /healthCheck\.serialConsole: Required value/,
    ],
    [
      'a health check that waits for ever',
      (s) => {
        s.healthCheck = { serialConsole: { contains: 'x', timeout: '3h' } };
      },
      /healthCheck\.serialConsole\.timeout must be between 10s and 2h/,
    ],
    [
      'half a verification',
      (s) => {
        s.verify = 'Sampled';
      },
      /supported values: "Full", "None"/,
    ],
  ])('with %s', async (_, edit, message) => refuses(edit, message));

  const changes = changesRefused(farshoreTypes.failover, failoverSpec);
  const immutable = /A Failover happens once and can't change, but for desiredState/;
  it.each<[string, Edit, RegExp]>([
    [
      'its type',
      (s) => {
        s.type = 'Test';
      },
      immutable,
    ],
    [
      'its machine',
      (s) => {
        s.machineRef.name = 'other';
      },
      immutable,
    ],
    [
      'its recovery point',
      (s) => {
        s.recoveryPoint = { type: 'LatestProcessed' };
      },
      immutable,
    ],
    [
      'its verification',
      (s) => {
        s.verify = 'None';
      },
      immutable,
    ],
    [
      'its health check',
      (s) => {
        s.healthCheck = { serialConsole: { contains: 'x' } };
      },
      immutable,
    ],
  ])('a change of %s', async (_, edit, message) => changes(edit, message));

  it('a change of whether a Planned one powers the source off', async () => {
    const planned = () => ({ ...failoverSpec(), type: 'Planned', powerOffSource: false });
    await changesRefused(farshoreTypes.failover, planned)((s) => {
      s.powerOffSource = true;
    }, immutable);
    await changesRefused(farshoreTypes.failover, planned)((s) => {
      s.powerOffSource = undefined;
    }, immutable);
  });

  it('a desired state that goes back', async () => {
    const committed = () => ({ ...failoverSpec(), desiredState: 'Committed' });
    const forward = /desiredState only goes forward/;
    await changesRefused(farshoreTypes.failover, committed)((s) => {
      s.desiredState = undefined;
    }, forward);
    await changesRefused(farshoreTypes.failover, committed)((s) => {
      s.desiredState = 'CleanedUp';
    }, forward);
  });

  it('but its desired state may be set, once', async () => {
    await changeAccepted(farshoreTypes.failover, failoverSpec, (s) => {
      s.desiredState = 'Committed';
    });
    await changeAccepted(
      farshoreTypes.failover,
      () => ({ ...failoverSpec(), type: 'Test' }),
      (s) => {
        s.desiredState = 'CleanedUp';
      },
    );
  });

  it('under a name too long for a tag', async () => {
    await expect(create(farshoreTypes.failover, failoverSpec(), 'f'.repeat(64))).rejects.toThrow(
      /The name of a Failover is used in the vault and on Azure resources/,
    );
  });
});

describe('what people see', () => {
  it('RPO is an age that grows by itself', async () => {
    const machine = await create<ProtectedVM>(farshoreTypes.protectedVM, machineSpec());
    await client.applyStatus(farshoreTypes.protectedVM, {
      ...identity(machine),
      status: {
        phase: 'Protected',
        lastBarrierTime: new Date(Date.now() - 150_000).toISOString(),
        conditions: [condition('Ready', 'True'), condition('Recoverable', 'True')],
      },
    });
    const row = server.kubectl([
      'get',
      'pvm',
      '-n',
      namespace,
      machine.metadata.name,
      '--no-headers',
    ]);
    expect(row).toMatch(/Protected\s+2m3\ds\s+True\s+True/);
  });

  it('a condition must be well-formed', async () => {
    const machine = await create<ProtectedVM>(farshoreTypes.protectedVM, machineSpec());
    await expect(
      client.applyStatus(farshoreTypes.protectedVM, {
        ...identity(machine),
        status: { conditions: [{ ...condition('Ready', 'True'), reason: 'not a word' }] },
      }),
    ).rejects.toThrow(/reason.*should match/);
  });

  it('a whole status of every kind fits its schema: nothing is pruned', async () => {
    for (const type of Object.values(farshoreTypes)) {
      const object = await create<Loose>(type, specOf(type));
      const status = fullStatus(type);
      await client.applyStatus(type, { ...identity(object), status });
      const after = await client.get<Loose & { status: unknown }>(type, object.metadata);
      expect(after?.status).toEqual(status);
    }
  });
});

const recipient = 'farshore-recovery-public-abcdefghijklmnopqrstuvwxyz234567';

function vaultSpec(): Spec {
  const [document] = parseAllDocuments(
    readFileSync(path.join(examples, 'recoveryvault.yaml'), 'utf8'),
  );
  return { ...document?.toJS().spec, cloud: undefined, recoveryRecipients: [recipient] };
}

function customCloud(): Spec {
  return {
    resourceManagerEndpoint: 'https://127.0.0.1:1',
    loginEndpoint: 'https://127.0.0.1:1',
    blobEndpoint: 'http://127.0.0.1:1/devstoreaccount1',
  };
}

function machineSpec(): Spec {
  return {
    source: { agent: {} },
    policyRef: { name: 'standard' },
    vaultRef: { name: 'west-europe' },
    processServerRef: { name: 'branch' },
    disks: [
      { name: 'system', device: '/dev/sda' },
      { name: 'data', device: '/dev/sdb' },
    ],
    target: { name: 'shop', size: 'Standard_D2s_v5' },
  };
}

function serverSpec(): Spec {
  return {
    vaultRef: { name: 'west-europe' },
    passphraseSecretRef: { name: 'p', key: 'passphrase' },
    image: 'farshore:0.1.0',
    cache: { size: '200Gi', storageClassName: 'fast' },
  };
}

function externalSpec(): Spec {
  return {
    mode: 'External',
    vaultRef: { name: 'west-europe' },
    passphraseSecretRef: { name: 'p', key: 'passphrase' },
    exposure: { endpoints: ['host.example:9443', '[::1]:9443'] },
  };
}

function failoverSpec(): Spec {
  return { type: 'Unplanned', machineRef: { name: 'shop' } };
}

function specOf(type: ResourceType): Spec {
  switch (type.kind) {
    case 'RecoveryVault':
      return vaultSpec();
    case 'ProtectedVM':
      return machineSpec();
    case 'ProcessServer':
      return externalSpec();
    case 'Failover':
      return failoverSpec();
    default:
      return {};
  }
}

/** A value for every field of a status, made from the CRD's own schema. */
function fullStatus(type: ResourceType): unknown {
  const crd = parse(readFileSync(path.join(root, 'crds', `${type.plural}.yaml`), 'utf8'));
  return sample(crd.spec.versions[0].schema.openAPIV3Schema.properties.status);
}

function sample(schema: Spec): unknown {
  if (schema.enum !== undefined) return schema.enum[0];
  if (schema.type === 'object')
    return Object.fromEntries(
      Object.entries(schema.properties ?? {}).map(([key, field]) => [key, sample(field)]),
    );
  if (schema.type === 'array') return [sample(schema.items)];
  if (schema.type === 'integer') return 7;
  if (schema.type === 'boolean') return false;
  if (schema.format === 'date-time') return '2026-01-01T00:00:00Z';
  return (schema.pattern ?? '').includes('[1-9]') ? '7' : 'Word';
}

function condition(type: string, status: string) {
  return {
    type,
    status,
    reason: 'Tested',
    message: '',
    lastTransitionTime: '2026-01-01T00:00:00Z',
  };
}

function identity(object: KubeObject) {
  return {
    apiVersion: object.apiVersion,
    kind: object.kind,
    metadata: { name: object.metadata.name, namespace },
  };
}

async function create<T extends KubeObject>(
  type: ResourceType,
  spec: Spec,
  name?: string,
): Promise<T> {
  return await client.create<T>(type, {
    apiVersion: API_GROUP_VERSION,
    kind: type.kind,
    metadata: { namespace, name: name ?? `t${count}-${Math.random().toString(36).slice(2, 8)}` },
    spec,
  } as unknown as T);
}

/** Expects that a valid spec, edited, is refused with the message, and that it is not refused for any other reason. */
function refusals(
  type: ResourceType,
  valid: () => Spec,
): (edit: Edit, message: RegExp) => Promise<void> {
  return async (edit, message) => {
    const spec = structuredClone(valid());
    edit(spec);
    await expectRefusal(create(type, spec), message);
    await create(type, valid());
  };
}

function changesRefused(
  type: ResourceType,
  valid: () => Spec,
): (edit: Edit, message: RegExp) => Promise<void> {
  return async (edit, message) => {
    const object = await create<Loose>(type, valid());
    edit(object.spec);
    await expectRefusal(client.replace(type, object), message);
  };
}

async function changeAccepted(type: ResourceType, valid: () => Spec, edit: Edit): Promise<void> {
  const object = await create<Loose>(type, valid());
  edit(object.spec);
  await client.replace(type, object);
}

/** What the API server discovers a moment after a CRD is established; kubectl caches what it saw before. */
async function eventually(look: () => string): Promise<string> {
  return await vi.waitFor(
    () => {
      rmSync(path.join(server.directory, 'kubectl'), { recursive: true, force: true });
      return look();
    },
    { timeout: 30_000, interval: 200 },
  );
}

async function expectRefusal(call: Promise<unknown>, message: RegExp): Promise<void> {
  const error = await call.then(
    () => new Error('it was accepted'),
    (failure) => failure,
  );
  expect(error.message).toMatch(message);
  expect(isKubeError(error, 'Invalid')).toBe(true);
}
