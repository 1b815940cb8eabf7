/** The emulator as a process of its own: tests kill it, and what it stands for goes on. */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { spawnEmulator } from '../arm/client.ts';
import { computeFor, emulatorOptions, testLocation, uploadVhd } from '../arm/fixture.ts';
import { isAlive, machine, tags, workbenchOfFile } from '../arm/workbench.ts';
import { buildBootableImage } from '../machines/bootableImage.ts';

const bench = workbenchOfFile();

describe('the emulator as a process', () => {
  test('its machines die with it, and a restart over its directory goes on', async () => {
    const image = path.join(bench.fixture.directory, 'kept.raw');
    await buildBootableImage({ path: image, sizeMiB: 256 });
    const url = await uploadVhd(bench.fixture.container, { name: 'kept.vhd', image });
    const options = emulatorOptions(
      path.join(bench.fixture.directory, 'process'),
      bench.fixture.account,
    );
    const first = await spawnEmulator(options);
    const [diskRef, nicRef, vmRef] = [bench.fresh('disk'), bench.fresh('nic'), bench.fresh('vm')];
    const client = computeFor(first);
    const disk = await client.importDisk(diskRef, bench.importing(url));
    const subnetId = (await bench.servers()).id;
    const nic = await client.createNic(nicRef, { location: testLocation, subnetId, tags });
    await client.createVm(vmRef, machine({ osDiskId: disk.id, nicIds: [nic.id] }));
    const before = childrenOf(first.pid);
    expect(before).toHaveLength(1);

    const exited = new Promise((resolve) => first.process.once('exit', resolve));
    first.process.kill('SIGKILL');
    await exited;
    await until(() => before.every((pid) => !isAlive(pid)));

    const port = Number(new URL(first.url).port);
    const second = await spawnEmulator({ ...options, port, resourceGroups: [], networks: [] });
    // The same client with the same token: it must not notice.
    expect(await client.vm(vmRef)).toMatchObject({ power: 'running', tags });
    const after = childrenOf(second.pid);
    expect(after).toHaveLength(1);
    expect(await second.control.creations()).toEqual({});
    await second.stop();
    await until(() => after.every((pid) => !isAlive(pid)));
  }, 90_000);
});

function childrenOf(pid: number): number[] {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8')
    .split(' ')
    .filter(Boolean)
    .map(Number);
}

async function until(condition: () => boolean): Promise<void> {
  for (const deadline = Date.now() + 10_000; !condition(); ) {
    if (Date.now() > deadline) throw new Error('it did not come to pass within 10 s');
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
