import { describe, expect, test } from 'vitest';
import { computeConformance } from '../conformance/compute.ts';
import { Maker } from '../conformance/computeMaker.ts';
import { ManualClock } from './manualClock.ts';
import { MemoryCompute } from './memoryCompute.ts';
import { MemoryPageBlobStore } from './memoryPageBlobStore.ts';

function memorySite() {
  const pages = new MemoryPageBlobStore({ clock: new ManualClock() });
  const compute = new MemoryCompute({ pages });
  return {
    compute,
    images: compute,
    pages,
    storageAccountId: 'account',
    resourceGroup: 'recovery',
    location: 'westeurope',
    subnet: { resourceGroup: 'recovery', network: 'production', subnet: 'default' },
    address: '10.0.0.210',
    size: 'Standard_B2s',
  };
}

describe('MemoryCompute', () => {
  const shared = memorySite();
  computeConformance(() => shared);

  test('counts what was made, not what was asked for again; what is made anew counts twice', async () => {
    const site = memorySite();
    const maker = new Maker(site, 'counted');
    const nic = await maker.nic();
    await site.compute.createNic(nic.ref, await maker.interfacing());
    expect(site.compute.creates).toEqual([`nic ${nic.ref.name}`]);
    await site.compute.removeNic(nic.ref);
    await site.compute.createNic(nic.ref, await maker.interfacing());
    expect(site.compute.creates).toEqual([`nic ${nic.ref.name}`, `nic ${nic.ref.name}`]);
  });
});
