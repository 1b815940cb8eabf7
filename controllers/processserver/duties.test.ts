import { describe, expect, test } from 'vitest';
import type { Failover, ReplicationPolicy } from '../../crds/index.ts';
import {
  failover,
  processServer,
  protectedVM,
  replicationPolicy,
} from '../../test/operator/manifests.ts';
import type { CatalogDocument } from '../../vault/documents/catalog.ts';
import type { DamagedLeaf } from '../../vault/documents/damagedLeaf.ts';
import type { Environment } from '../environment.ts';
import type { OpenVault } from '../openvaults/openVaults.ts';
import { assignmentOf } from './assignments.ts';
import { gatherDuties } from './duties.ts';

const catalog: CatalogDocument = {
  machineId: 'cd'.repeat(16),
  name: 'web',
  namespace: 'default',
  createdAt: 0,
  writerEpoch: 3,
  processServer: 'ps',
  disks: [{ index: 0, name: 'system', device: '/dev/sda', sizeBytes: 0 }],
  dataKey: [],
  activeSide: 'Source',
  policy: { name: 'policy', retentionSeconds: 86_400 },
  target: {},
};
const finalSync = { failover: 'move', powerOff: true };

describe('a final sync that the vault asks for', () => {
  test('is passed on while a Planned Failover of this machine asks for it', () => {
    const [duty] = dutiesOf({ finalSync }, failover('move', { type: 'Planned' }));
    expect(duty?.catalog.finalSync).toEqual(finalSync);
  });

  test('turns nothing off when the Failover does not say so', () => {
    const spec = { type: 'Planned' as const, powerOffSource: false };
    const [duty] = dutiesOf({ finalSync }, failover('move', spec));
    expect(duty?.catalog.finalSync).toEqual({ failover: 'move', powerOff: false });
  });

  test.each<[string, Failover | undefined]>([
    ['no Failover asks for it', undefined],
    ['that Failover is not Planned', failover('move')],
    [
      'that Failover is of another machine',
      failover('move', { type: 'Planned', machineRef: { name: 'db' } }),
    ],
    [
      'that Failover was refused',
      { ...failover('move', { type: 'Planned' }), status: { phase: 'Rejected' } },
    ],
    ['that Failover is in another namespace', failover('move', { type: 'Planned' }, 'other')],
  ])('reaches no machine when %s', (_, resource) => {
    const [duty] = dutiesOf({ finalSync }, resource);
    expect(duty?.catalog).toEqual(catalog);
  });
});

describe('a machine that runs in Azure', () => {
  test('is given to no process server, and what its list says of it stays', () => {
    const duties = gather({ activeSide: 'Azure' }, undefined);
    expect(duties.machines.size).toBe(0);
    expect([...duties.keep]).toEqual(['default/web']);
  });
});

describe('a resync window', () => {
  const resyncWindow = { from: '20:00', to: '06:00', timeZone: 'UTC', urgent: [] };

  test('of the policy is the machine’s, unless the machine may resync now', () => {
    const policy = { ...replicationPolicy(), spec: { ...replicationPolicy().spec, resyncWindow } };
    const [duty] = gather({}, undefined, { policy }).machines.get('ps') ?? [];
    expect(duty?.policy.resyncWindow).toEqual(resyncWindow);
    const annotations = { 'farshore.dev/resync-now': '' };
    const [now] = gather({}, undefined, { policy, annotations }).machines.get('ps') ?? [];
    expect(now?.policy.resyncWindow).toBeUndefined();
  });

  test('in a time zone that nobody knows holds nothing back', () => {
    const unknown = { ...resyncWindow, timeZone: 'Europe/Atlantis' };
    const spec = { ...replicationPolicy().spec, resyncWindow: unknown };
    const policy = { ...replicationPolicy(), spec };
    const [duty] = gather({}, undefined, { policy }).machines.get('ps') ?? [];
    expect(duty?.policy.resyncWindow).toBeUndefined();
  });
});

describe('what an applier found damaged', () => {
  test('is to be sent again, as far as its disk is protected still', () => {
    const damaged = [
      { disk: 0, leaf: 4 },
      { disk: 7, leaf: 1 },
    ];
    const [duty] = gather({}, undefined, { damaged }).machines.get('ps') ?? [];
    if (duty === undefined) throw new Error('no duty');
    expect(assignmentOf(duty)?.repair).toEqual([{ disk: 0, leaf: 4 }]);
  });
});

function dutiesOf(change: Partial<CatalogDocument>, resource: Failover | undefined) {
  return gather(change, resource).machines.get('ps') ?? [];
}

function gather(
  change: Partial<CatalogDocument>,
  resource: Failover | undefined,
  options: {
    policy?: ReplicationPolicy;
    annotations?: Record<string, string>;
    damaged?: DamagedLeaf[];
  } = {},
) {
  const { policy = replicationPolicy(), annotations = {}, damaged } = options;
  const plain = protectedVM();
  const metadata = { ...plain.metadata, annotations };
  const machine = { ...plain, metadata, status: { machineId: catalog.machineId } };
  const entry = { ...catalog, ...change };
  const environment = {
    caches: {
      machines: { list: () => [machine] },
      policies: { get: () => policy },
      failovers: {
        get: (key: string) =>
          resource !== undefined &&
          key === `${resource.metadata.namespace}/${resource.metadata.name}`
            ? resource
            : undefined,
      },
    },
  } as unknown as Pick<Environment, 'caches'>;
  const observation = { catalog: () => entry, applied: () => ({ damaged }) };
  const vault = { observation } as unknown as OpenVault;
  return gatherDuties(environment, vault, {
    server: processServer(),
    replicas: new Set(['ps']),
  });
}
