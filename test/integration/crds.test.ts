/**
 * The CRDs on a real API server: they install, the samples pass, defaults are as documented, and everything that CEL or the
 * schema refuses is refused with the words that people will read.
 */
import { globSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { parse } from 'yaml';
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
import { failoverChanges, failoverRefusals, immutable } from './crds/failover.ts';
import {
  externalRefusals,
  processServerChanges,
  processServerRefusals,
} from './crds/processServer.ts';
import { protectedVMChanges, protectedVMRefusals } from './crds/protectedVM.ts';
import { recoveryVaultChanges, recoveryVaultRefusals } from './crds/recoveryVault.ts';
import { replicationPolicyRefusals } from './crds/replicationPolicy.ts';
import {
  type Case,
  type Edit,
  externalSpec,
  failoverSpec,
  machineSpec,
  type Spec,
  serverSpec,
  specOf,
  vaultSpec,
} from './crds/specs.ts';

type Loose = KubeObject & { spec: Record<string, unknown> };
const root = path.resolve(import.meta.dirname, '../..');
const examples = path.join(root, 'docs/examples');
const namespace = 'crds';
let server: KubernetesServer;
let client: HttpKubeClient;
let count = 0;
/** What every refused call was told. */
const refused: string[] = [];

beforeAll(async () => {
  server = await startKubernetes();
  client = rememberingRefusals(connectKubernetes({ kubeconfig: server.kubeconfigPath }));
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
  it.each(cases(recoveryVaultRefusals))('with %s', async (_, edit, message) =>
    refuses(edit, message),
  );

  const changes = changesRefused(farshoreTypes.recoveryVault, vaultSpec);
  it.each(cases(recoveryVaultChanges))('a change of %s', async (_, edit, message) =>
    changes(edit, message),
  );

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
  it.each(cases(replicationPolicyRefusals))('with %s', async (_, edit, message) =>
    refuses(edit, message),
  );
});

describe('a ProtectedVM is refused', () => {
  const refuses = refusals(farshoreTypes.protectedVM, machineSpec);
  it.each(cases(protectedVMRefusals))('with %s', async (_, edit, message) =>
    refuses(edit, message),
  );

  const changes = changesRefused(farshoreTypes.protectedVM, machineSpec);
  it.each(cases(protectedVMChanges))('a change of %s', async (_, edit, message) =>
    changes(edit, message),
  );

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
  it.each(cases(processServerRefusals))('with %s', async (_, edit, message) =>
    refuses(edit, message),
  );
  it.each(cases(externalRefusals))('of mode External with %s', async (_, edit, message) =>
    refusesExternal(edit, message),
  );

  const changes = changesRefused(farshoreTypes.processServer, serverSpec);
  it.each(cases(processServerChanges))('a change of %s', async (_, edit, message) =>
    changes(edit, message),
  );

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
  it.each(cases(failoverRefusals))('with %s', async (_, edit, message) => refuses(edit, message));

  const changes = changesRefused(farshoreTypes.failover, failoverSpec);
  it.each(cases(failoverChanges))('a change of %s', async (_, edit, message) =>
    changes(edit, message),
  );

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

it('every rule of every CRD has refused something above, with its own words', () => {
  const rules = globSync('crds/*.yaml', { cwd: root }).flatMap((file) =>
    messagesOf(parse(readFileSync(path.join(root, file), 'utf8'))),
  );
  expect(rules.length).toBeGreaterThan(40);
  expect(rules.filter((message) => !refused.some((told) => told.includes(message)))).toEqual([]);
});

function messagesOf(value: Spec): string[] {
  if (typeof value !== 'object' || value === null) return [];
  const rules: { message: string }[] = value['x-kubernetes-validations'] ?? [];
  return [...rules.map((rule) => rule.message), ...Object.values(value).flatMap(messagesOf)];
}

function rememberingRefusals(connected: HttpKubeClient): HttpKubeClient {
  return new Proxy(connected, {
    get(target, property) {
      const value = Reflect.get(target, property, target);
      if (typeof value !== 'function') return value;
      return (...args: unknown[]) => {
        const answer = value.apply(target, args);
        if (answer instanceof Promise) answer.catch((error) => refused.push(error.message));
        return answer;
      };
    },
  });
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

/** As `it.each` takes them. */
function cases(of: readonly Case[]): [string, Edit, RegExp][] {
  return of.map(([what, edit, message]) => [what, edit, message]);
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
