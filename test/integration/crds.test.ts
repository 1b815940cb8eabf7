/**
 * The CRDs on a real API server: they install, the samples pass, defaults are as documented, and everything that CEL or the
 * schema refuses is refused with the words that people will read.
 */
import { globSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  type Failover,
  farshoreTypes,
  type ProcessServer,
  type ProtectedVM,
  type RecoveryVault,
  type ReplicationPolicy,
} from '../../crds/index.ts';
import { kubeTypes } from '../../platform/kubernetes.ts';
import { type FarshoreCluster, startFarshoreCluster } from '../servers/farshoreCluster.ts';
import type { KubernetesServer } from '../servers/kubernetes.ts';
import { Applicant, cases, type Loose } from './crds/applicant.ts';
import { discovered } from './crds/discovery.ts';
import { failoverChanges, failoverRefusals, immutable } from './crds/failover.ts';
import {
  externalRefusals,
  processServerChanges,
  processServerRefusals,
} from './crds/processServer.ts';
import { protectedVMChanges, protectedVMRefusals } from './crds/protectedVM.ts';
import { recoveryVaultChanges, recoveryVaultRefusals } from './crds/recoveryVault.ts';
import { replicationPolicyRefusals } from './crds/replicationPolicy.ts';
import { condition, fullStatus, ruleMessages } from './crds/schema.ts';
import {
  externalSpec,
  failoverSpec,
  machineSpec,
  serverSpec,
  specOf,
  vaultSpec,
} from './crds/specs.ts';

const examples = path.resolve(import.meta.dirname, '../../docs/examples');
const namespace = 'crds';
let cluster: FarshoreCluster;
let server: KubernetesServer;
const applicant = new Applicant(() => cluster.client, { namespace });

beforeAll(async () => {
  cluster = await startFarshoreCluster();
  server = cluster.server;
  server.kubectl(['create', 'namespace', namespace]);
  server.kubectl(['create', 'namespace', 'farshore-demo']);
});

afterAll(async () => {
  await cluster?.close();
});

describe('the CRDs', () => {
  it('have structural schemas that the API server accepts without a complaint', async () => {
    for (const type of Object.values(farshoreTypes)) {
      const crd = await applicant.client.get<
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
      await discovered(server, () => server.kubectl(['get', name, '-n', namespace]));
  });

  it('explain their fields to kubectl', async () => {
    const explained = await discovered(server, () =>
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

  it('are taken one after the other as their README tells, and all of them are in it', () => {
    const readme = readFileSync(path.join(examples, 'README.md'), 'utf8');
    const rows = readme.split('\n').filter((line) => /^\| [a-z-]+\.yaml/.test(line));
    const files = rows.flatMap((row) => row.match(/[a-z-]+\.yaml/g) ?? []);
    for (const file of files) server.kubectl(['apply', '-f', path.join(examples, file)]);
    expect(new Set(files)).toEqual(new Set(globSync('*.yaml', { cwd: examples })));
  });
});

describe('defaults', () => {
  it('of a ReplicationPolicy are those that the documentation promises', async () => {
    const policy = await applicant.create<ReplicationPolicy>(farshoreTypes.replicationPolicy, {});
    expect(policy.spec).toEqual({
      rpoThreshold: '15m',
      crashConsistentInterval: '60s',
      retention: '24h',
      sampledVerification: { sharePerDay: 1 },
    });
    const nightly = await applicant.create<ReplicationPolicy>(farshoreTypes.replicationPolicy, {
      resyncWindow: { from: '20:00', to: '06:00' },
    });
    expect(nightly.spec.resyncWindow).toEqual({
      from: '20:00',
      to: '06:00',
      timeZone: 'UTC',
      urgent: ['TrackingLost', 'AfterReboot', 'SourceReverted', 'VaultGap'],
    });
  });

  it('of a RecoveryVault', async () => {
    const vault = await applicant.create<RecoveryVault>(farshoreTypes.recoveryVault, vaultSpec());
    expect(vault.spec.cloud).toEqual({ type: 'AzurePublic' });
    expect(vault.spec.prefix).toBe('');
  });

  it('of a ProcessServer', async () => {
    const processServer = await applicant.create<ProcessServer>(
      farshoreTypes.processServer,
      serverSpec(),
    );
    expect(processServer.spec).toMatchObject({ mode: 'StatefulSet', replicas: 1, port: 9443 });
  });

  it('of a ProtectedVM', async () => {
    const machine = await applicant.create<ProtectedVM>(farshoreTypes.protectedVM, machineSpec());
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
    const failover = await applicant.create<Failover>(farshoreTypes.failover, failoverSpec());
    expect(failover.spec).toEqual({
      type: 'Unplanned',
      machineRef: { name: 'shop' },
      recoveryPoint: { type: 'Latest' },
      verify: 'Full',
    });
  });

  it('leave it to a person to say what becomes of a failover', async () => {
    const failover = await applicant.create<Failover>(farshoreTypes.failover, failoverSpec());
    expect(failover.spec.desiredState).toBeUndefined();
  });
});

describe('a RecoveryVault is refused', () => {
  const refuses = applicant.refusals(farshoreTypes.recoveryVault, vaultSpec);
  it.each(cases(recoveryVaultRefusals))('with %s', async (_, edit, message) =>
    refuses(edit, message),
  );

  const changes = applicant.changesRefused(farshoreTypes.recoveryVault, vaultSpec);
  it.each(cases(recoveryVaultChanges))('a change of %s', async (_, edit, message) =>
    changes(edit, message),
  );

  it('but its networks, credentials and takeover may change', async () => {
    await applicant.changeAccepted(farshoreTypes.recoveryVault, vaultSpec, (s) => {
      s.networks.test.subnet = 'other';
      s.credentials.servicePrincipal.clientSecretRef.key = 'other';
      s.takeControlFromEpoch = 3;
      s.allowedNamespaces = ['shop'];
    });
  });
});

describe('a ReplicationPolicy is refused', () => {
  const refuses = applicant.refusals(farshoreTypes.replicationPolicy, () => ({}));
  it.each(cases(replicationPolicyRefusals))('with %s', async (_, edit, message) =>
    refuses(edit, message),
  );
});

describe('a ProtectedVM is refused', () => {
  const refuses = applicant.refusals(farshoreTypes.protectedVM, machineSpec);
  it.each(cases(protectedVMRefusals))('with %s', async (_, edit, message) =>
    refuses(edit, message),
  );

  const changes = applicant.changesRefused(farshoreTypes.protectedVM, machineSpec);
  it.each(cases(protectedVMChanges))('a change of %s', async (_, edit, message) =>
    changes(edit, message),
  );

  it('but a device’s path, the policy, the process server and the target may change', async () => {
    await applicant.changeAccepted(farshoreTypes.protectedVM, machineSpec, (s) => {
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
    const machine = await applicant.create<ProtectedVM>(farshoreTypes.protectedVM, machineSpec());
    const { name } = machine.metadata;
    await applicant.applyStatus(farshoreTypes.protectedVM, machine, status);
    const grow = () =>
      applicant.client.patch(
        farshoreTypes.protectedVM,
        { namespace, name },
        { merge: { spec: { target: { size: 'Standard_D4s_v5' } } } },
      );
    await expect(grow()).rejects.toThrow(
      /spec\.target can't change while a failover of the machine is active or the machine runs in Azure/,
    );
    await applicant.client.patch(
      farshoreTypes.protectedVM,
      { namespace, name },
      { merge: { spec: { paused: true } } },
    );
    await applicant.applyStatus(farshoreTypes.protectedVM, machine, {
      activeFailover: '',
      activeSide: 'Source',
    });
    await grow();
  });

  it('under a name too long for a label', async () => {
    await expect(
      applicant.create(farshoreTypes.protectedVM, machineSpec(), 'm'.repeat(64)),
    ).rejects.toThrow(/at most 63 lower-case letters, digits and dashes/);
  });

  it('under a name with dots', async () => {
    await expect(
      applicant.create(farshoreTypes.protectedVM, machineSpec(), 'shop.example'),
    ).rejects.toThrow(/The name of a ProtectedVM is used as a label and in the vault/);
  });
});

describe('a ProcessServer is refused', () => {
  const refuses = applicant.refusals(farshoreTypes.processServer, serverSpec);
  const refusesExternal = applicant.refusals(farshoreTypes.processServer, externalSpec);
  it.each(cases(processServerRefusals))('with %s', async (_, edit, message) =>
    refuses(edit, message),
  );
  it.each(cases(externalRefusals))('of mode External with %s', async (_, edit, message) =>
    refusesExternal(edit, message),
  );

  const changes = applicant.changesRefused(farshoreTypes.processServer, serverSpec);
  it.each(cases(processServerChanges))('a change of %s', async (_, edit, message) =>
    changes(edit, message),
  );

  it('but its cache may grow, across units too', async () => {
    await applicant.changeAccepted(farshoreTypes.processServer, serverSpec, (s) => {
      s.cache.size = '1Ti';
    });
  });

  it('can be scaled', async () => {
    const processServer = await applicant.create<ProcessServer>(
      farshoreTypes.processServer,
      serverSpec(),
    );
    server.kubectl([
      'scale',
      '-n',
      namespace,
      `pserver/${processServer.metadata.name}`,
      '--replicas=3',
    ]);
    const after = await applicant.client.get<ProcessServer>(
      farshoreTypes.processServer,
      processServer.metadata,
    );
    expect(after?.spec.replicas).toBe(3);
  });

  it('under a name that no Service could have', async () => {
    await expect(
      applicant.create(farshoreTypes.processServer, serverSpec(), '1st'),
    ).rejects.toThrow(/at most 45 lower-case letters, digits and dashes, a letter first/);
    await expect(
      applicant.create(farshoreTypes.processServer, serverSpec(), 'p'.repeat(46)),
    ).rejects.toThrow(/at most 45/);
  });
});

describe('a Failover is refused', () => {
  const refuses = applicant.refusals(farshoreTypes.failover, failoverSpec);
  it.each(cases(failoverRefusals))('with %s', async (_, edit, message) => refuses(edit, message));

  const changes = applicant.changesRefused(farshoreTypes.failover, failoverSpec);
  it.each(cases(failoverChanges))('a change of %s', async (_, edit, message) =>
    changes(edit, message),
  );

  it('a change of whether a Planned one powers the source off', async () => {
    const planned = () => ({ ...failoverSpec(), type: 'Planned', powerOffSource: false });
    await applicant.changesRefused(farshoreTypes.failover, planned)((s) => {
      s.powerOffSource = true;
    }, immutable);
    await applicant.changesRefused(farshoreTypes.failover, planned)((s) => {
      s.powerOffSource = undefined;
    }, immutable);
  });

  it('a desired state that goes back', async () => {
    const committed = () => ({ ...failoverSpec(), desiredState: 'Committed' });
    const forward = /desiredState only goes forward/;
    await applicant.changesRefused(farshoreTypes.failover, committed)((s) => {
      s.desiredState = undefined;
    }, forward);
    await applicant.changesRefused(farshoreTypes.failover, committed)((s) => {
      s.desiredState = 'CleanedUp';
    }, forward);
  });

  it('but its desired state may be set, once', async () => {
    await applicant.changeAccepted(farshoreTypes.failover, failoverSpec, (s) => {
      s.desiredState = 'Committed';
    });
    await applicant.changeAccepted(
      farshoreTypes.failover,
      () => ({ ...failoverSpec(), type: 'Test' }),
      (s) => {
        s.desiredState = 'CleanedUp';
      },
    );
  });

  it('under a name too long for a tag', async () => {
    await expect(
      applicant.create(farshoreTypes.failover, failoverSpec(), 'f'.repeat(64)),
    ).rejects.toThrow(/The name of a Failover is used in the vault and on Azure resources/);
  });
});

describe('what people see', () => {
  it('RPO is an age that grows by itself', async () => {
    const machine = await applicant.create<ProtectedVM>(farshoreTypes.protectedVM, machineSpec());
    await applicant.applyStatus(farshoreTypes.protectedVM, machine, {
      phase: 'Protected',
      lastBarrierTime: new Date(Date.now() - 150_000).toISOString(),
      conditions: [condition('Ready', 'True'), condition('Recoverable', 'True')],
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
    const machine = await applicant.create<ProtectedVM>(farshoreTypes.protectedVM, machineSpec());
    await expect(
      applicant.applyStatus(farshoreTypes.protectedVM, machine, {
        conditions: [{ ...condition('Ready', 'True'), reason: 'not a word' }],
      }),
    ).rejects.toThrow(/reason.*should match/);
  });

  it('a whole status of every kind fits its schema: nothing is pruned', async () => {
    for (const type of Object.values(farshoreTypes)) {
      const object = await applicant.create<Loose>(type, specOf(type));
      const status = fullStatus(type);
      await applicant.applyStatus(type, object, status);
      const after = await applicant.client.get<Loose & { status: unknown }>(type, object.metadata);
      expect(after?.status).toEqual(status);
    }
  });
});

it('every rule of every CRD has refused something above, with its own words', () => {
  const rules = ruleMessages();
  const told = applicant.refused;
  expect(rules.length).toBeGreaterThan(40);
  expect(rules.filter((message) => !told.some((words) => words.includes(message)))).toEqual([]);
});
