import { describe, expect, test } from 'vitest';
import type { Failover } from '../../crds/index.ts';
import {
  failover,
  processServer,
  protectedVM,
  replicationPolicy,
} from '../../test/operator/manifests.ts';
import type { CatalogDocument } from '../../vault/documents/catalog.ts';
import type { Environment } from '../environment.ts';
import type { OpenVault } from '../openvaults/openVaults.ts';
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

function dutiesOf(change: Partial<CatalogDocument>, resource: Failover | undefined) {
  return gather(change, resource).machines.get('ps') ?? [];
}

function gather(change: Partial<CatalogDocument>, resource: Failover | undefined) {
  const machine = { ...protectedVM(), status: { machineId: catalog.machineId } };
  const entry = { ...catalog, ...change };
  const environment = {
    caches: {
      machines: { list: () => [machine] },
      policies: { get: () => replicationPolicy() },
      failovers: {
        get: (key: string) =>
          resource !== undefined &&
          key === `${resource.metadata.namespace}/${resource.metadata.name}`
            ? resource
            : undefined,
      },
    },
  } as unknown as Pick<Environment, 'caches'>;
  const vault = { observation: { catalog: () => entry } } as unknown as OpenVault;
  return gatherDuties(environment, vault, {
    server: processServer(),
    replicas: new Set(['ps']),
  });
}
