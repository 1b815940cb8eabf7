import { Readable } from 'node:stream';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { AzureDiskImageReader } from '../../platform/azure/diskImageReader.ts';
import {
  ensureVaultContainer,
  openVaultStores,
  type VaultStores,
} from '../../platform/azure/vaultStores.ts';
import { systemClock } from '../../platform/node/clock.ts';
import { systemRandom } from '../../platform/node/random.ts';
import { collect, pattern } from '../conformance/objectStore.ts';
import { type Azurite, startAzurite } from '../servers/azurite.ts';
import {
  type Fault,
  type FaultProxy,
  startFaultProxy,
  throughProxy,
} from '../servers/faultProxy.ts';

const deps = { clock: systemClock, random: systemRandom };
const patience = { stallMs: 500, totalMs: 3_000 };
let azurite: Azurite;
let proxy: FaultProxy;
/** Through the proxy, and past it. */
let stores: VaultStores;
let direct: VaultStores;
let keys = 0;
const fresh = () => {
  keys += 1;
  return `faults/${keys}.json`;
};
const bytes = (text: string) => new TextEncoder().encode(text);
const open = (change: object = {}) =>
  openVaultStores(deps, {
    connectionString: throughProxy(azurite.connectionString, proxy),
    container: 'vault',
    patience,
    ...change,
  });

beforeAll(async () => {
  azurite = await startAzurite();
  proxy = await startFaultProxy({ target: new URL(azurite.blobEndpoint).origin });
  const access = { connectionString: azurite.connectionString, container: 'vault', patience };
  await ensureVaultContainer(deps, access);
  direct = openVaultStores(deps, access);
  stores = open();
});
afterAll(async () => {
  await proxy?.stop();
  await azurite?.stop();
});
beforeEach(() => {
  proxy.decide = () => 'pass';
  proxy.requests.length = 0;
});

/** The first requests that match meet these faults, one each; later ones pass. */
function faults(method: string, ...planned: Fault[]): void {
  proxy.decide = (request) => (request.method === method ? (planned.shift() ?? 'pass') : 'pass');
}

describe('objects', () => {
  test('a put whose answer was lost is told as existing, and is there once', async () => {
    const key = fresh();
    faults('PUT', 'dropAnswer');
    expect(await stores.objects.putIfAbsent(key, bytes('mine'))).toEqual({ outcome: 'exists' });
    expect(await direct.objects.get(key)).toMatchObject({ body: bytes('mine') });
  });

  test('a put that never arrived is made by the next try, its source read from the start', async () => {
    const key = fresh();
    const body = pattern(2 << 20);
    let opened = 0;
    const source = {
      size: body.length,
      open: () => {
        opened += 1;
        return Readable.from([body.subarray(0, 1 << 20), body.subarray(1 << 20)]);
      },
    };
    faults('PUT', 'dropRequest', { status: 503, code: 'ServerBusy' });
    expect((await stores.objects.putIfAbsent(key, source)).outcome).toBe('created');
    expect(opened).toBe(3);
    expect(Buffer.from((await direct.objects.get(key))?.body ?? []).equals(body)).toBe(true);
  });

  test('a replacement whose answer was lost is told as done', async () => {
    const key = fresh();
    const { etag } = await stores.objects.put(key, bytes('one'));
    faults('PUT', 'dropAnswer');
    const replaced = await stores.objects.replace(key, bytes('two'), { etag });
    expect(replaced).toEqual({ outcome: 'replaced', etag: (await direct.objects.head(key))?.etag });
  });

  test('a replacement that lost to another, and its answer too, is a conflict', async () => {
    const key = fresh();
    const { etag } = await stores.objects.put(key, bytes('one'));
    await direct.objects.put(key, bytes('theirs'));
    faults('PUT', 'dropAnswer');
    expect(await stores.objects.replace(key, bytes('two'), { etag })).toEqual({
      outcome: 'conflict',
    });
    expect(await direct.objects.get(key)).toMatchObject({ body: bytes('theirs') });
  });

  test('a removal whose answer was lost is told as done', async () => {
    const key = fresh();
    await stores.objects.put(key, bytes('x'));
    faults('DELETE', 'dropAnswer');
    expect(await stores.objects.remove(key)).toBe('removed');
  });

  test('an answer that breaks off half way is read again', async () => {
    const key = fresh();
    const body = pattern(1 << 20);
    await stores.objects.putIfAbsent(key, body);
    faults('GET', 'cutAnswer', { status: 500, code: 'InternalError' });
    expect(Buffer.from((await stores.objects.get(key))?.body ?? []).equals(body)).toBe(true);
  });

  test('a listing survives a page that fails', async () => {
    const key = fresh();
    await stores.objects.put(`${key}/a`, bytes('a'));
    faults('GET', 'dropAnswer', { status: 503, code: 'ServerBusy' });
    expect(await collect(stores.objects.list(`${key}/`))).toHaveLength(1);
  });

  test('a server that stays silent is given up in bounded time, and named', async () => {
    proxy.decide = () => 'hang';
    const started = performance.now();
    await expect(stores.objects.get(fresh())).rejects.toMatchObject({
      code: 'VaultUnreachable',
      transient: true,
      message: expect.stringContaining(`127.0.0.1:${proxy.port}/vault`),
    });
    expect(performance.now() - started).toBeLessThan(patience.totalMs + 4 * patience.stallMs);
  });

  test('a slow body that moves is not given up', async () => {
    const patient = open({ patience: { stallMs: 1000, totalMs: 1000 } });
    proxy.bytesPerSecond = 6 << 20;
    const started = performance.now();
    try {
      const body = pattern(24 << 20);
      expect((await patient.objects.putIfAbsent(fresh(), body)).outcome).toBe('created');
    } finally {
      proxy.bytesPerSecond = undefined;
    }
    expect(performance.now() - started).toBeGreaterThan(3000);
    expect(proxy.requests).toHaveLength(1);
  });

  test('a service that stays busy is told as throttled, after we waited as it asked', async () => {
    const times: number[] = [];
    proxy.decide = () => {
      times.push(performance.now());
      return { status: 503, code: 'ServerBusy', retryAfterSeconds: 1 };
    };
    await expect(stores.objects.head(fresh())).rejects.toMatchObject({
      code: 'StoreThrottled',
      transient: true,
    });
    expect(times.length).toBeGreaterThan(1);
    expect((times[1] ?? 0) - (times[0] ?? 0)).toBeGreaterThan(990);
  });

  test('an abort stops a call that waits, with its reason', async () => {
    proxy.decide = () => 'hang';
    const reason = new Error('shutting down');
    const controller = new AbortController();
    const call = stores.objects.putIfAbsent(fresh(), bytes('x'), { signal: controller.signal });
    await expect.poll(() => proxy.requests.length).toBe(1);
    controller.abort(reason);
    await expect(call).rejects.toBe(reason);
  });
});

describe('a vault that can not be used says why', () => {
  test('nobody listens', async () => {
    const closed = await startFaultProxy({ target: 'http://127.0.0.1:1' });
    const connectionString = throughProxy(azurite.connectionString, closed);
    await closed.stop();
    const dead = open({ connectionString, patience: { stallMs: 500, totalMs: 800 } });
    await expect(dead.objects.get('vault.json')).rejects.toMatchObject({
      code: 'VaultUnreachable',
      message: expect.stringMatching(/ECONNREFUSED/),
    });
    await expect(dead.pages.info('x')).rejects.toMatchObject({ code: 'VaultUnreachable' });
  });

  test('the key is wrong', async () => {
    const wrong = azurite.connectionString.replace(
      /AccountKey=[^;]+/,
      `AccountKey=${Buffer.alloc(64, 1).toString('base64')}`,
    );
    const { objects, pages } = open({ connectionString: wrong });
    const refused = { code: 'VaultRefusedKey', transient: false };
    await expect(objects.get('vault.json')).rejects.toMatchObject(refused);
    await expect(objects.head('vault.json')).rejects.toMatchObject(refused);
    await expect(objects.putIfAbsent('x', bytes('x'))).rejects.toMatchObject(refused);
    await expect(objects.serverTime()).rejects.toMatchObject(refused);
    await expect(collect(objects.list(''))).rejects.toMatchObject(refused);
    await expect(pages.info('x')).rejects.toMatchObject(refused);
    await expect(objects.get('vault.json')).rejects.not.toMatchObject({
      message: expect.stringContaining('AccountKey'),
    });
  });

  test('the container is missing', async () => {
    const { objects, pages } = open({ container: 'nowhere' });
    const missing = { code: 'VaultContainerMissing' };
    await expect(objects.get('vault.json')).rejects.toMatchObject(missing);
    await expect(objects.head('vault.json')).rejects.toMatchObject(missing);
    await expect(objects.putIfAbsent('x', bytes('x'))).rejects.toMatchObject(missing);
    await expect(objects.remove('x')).rejects.toMatchObject(missing);
    await expect(collect(objects.list(''))).rejects.toMatchObject(missing);
    await expect(pages.info('x')).rejects.toMatchObject(missing);
    await expect(pages.create('x', { size: 512, sequenceNumber: 0 })).rejects.toMatchObject(
      missing,
    );
  });

  test('the access itself makes no sense', () => {
    for (const connectionString of [
      '',
      'nonsense',
      'AccountName=a',
      'BlobEndpoint=ftp://x;AccountName=a;AccountKey=YQ==',
    ])
      expect(() => open({ connectionString })).toThrow(
        expect.objectContaining({ code: 'VaultAccessInvalid' }),
      );
    expect(() => open({ container: 'Not_A_Container' })).toThrow(
      expect.objectContaining({ code: 'VaultAccessInvalid' }),
    );
  });
});

describe('pages', () => {
  const MIB = 1 << 20;
  const fenced = async (sequenceNumber = 1) => {
    const key = `${fresh()}.vhd`;
    await stores.pages.create(key, { size: MIB, sequenceNumber: 0 });
    return { key, fence: await stores.pages.fence(key, { sequenceNumber, leaseSeconds: 60 }) };
  };

  test('a write that may still land is not sent again: its fate is the caller’s to settle', async () => {
    const { key, fence } = await fenced();
    proxy.requests.length = 0;
    faults('PUT', 'dropAnswer');
    await expect(stores.pages.write(key, pattern(512), 0, fence)).rejects.toMatchObject({
      code: 'VaultUnreachable',
    });
    expect(proxy.requests).toHaveLength(1);
  });

  test('a write that the service put off is sent again', async () => {
    const { key, fence } = await fenced();
    faults('PUT', { status: 503, code: 'ServerBusy' }, { status: 503, code: 'ServerBusy' });
    await stores.pages.write(key, pattern(512), 0, fence);
    expect(await collect(direct.pages.ranges(key))).toEqual([{ offset: 0, length: 512 }]);
  });

  test('a write that arrives after the fence was raised changes nothing', async () => {
    const { key, fence } = await fenced(1);
    let deliver = () => {};
    const deliverAfter = new Promise<void>((resolve) => {
      deliver = resolve;
    });
    faults('PUT', { deliverAfter });
    await expect(stores.pages.write(key, Buffer.alloc(512, 1), 0, fence)).rejects.toMatchObject({
      code: 'VaultUnreachable',
    });
    const next = await stores.pages.fence(key, { sequenceNumber: 2, leaseSeconds: 60 });
    await stores.pages.write(key, Buffer.alloc(512, 2), 0, next);
    deliver();
    await proxy.delivered();
    expect(Buffer.from(await direct.pages.read(key, { offset: 0, length: 512 }))).toEqual(
      Buffer.alloc(512, 2),
    );
  });

  test('a snapshot whose answer was lost is taken once', async () => {
    const { key, fence } = await fenced();
    await stores.pages.write(key, pattern(512), 0, fence);
    await stores.pages.snapshot(key, { fence, metadata: { lsn: '1' } });
    // The service's clock names snapshots by the second; an older one with the same metadata must be told apart.
    const before = Date.now();
    await expect.poll(() => Date.now() - before, { timeout: 3000 }).toBeGreaterThan(1000);
    faults('PUT', 'dropAnswer');
    const { snapshot } = await stores.pages.snapshot(key, { fence, metadata: { lsn: '2' } });
    const listed = await collect(direct.pages.snapshots(key));
    expect(listed.map((one) => one.metadata.lsn)).toEqual(['1', '2']);
    expect(listed[1]?.snapshot).toBe(snapshot);
  });

  test('a fence whose answers are lost is ours in the end', async () => {
    const { key } = await fenced();
    faults('PUT', 'dropAnswer', 'pass', 'dropAnswer', 'pass', 'pass', 'dropAnswer');
    const fence = await stores.pages.fence(key, { sequenceNumber: 5, leaseSeconds: 60 });
    await stores.pages.write(key, pattern(512), 0, fence);
    expect(await direct.pages.info(key)).toMatchObject({ sequenceNumber: 5, leased: true });
  });

  test('a copy and a creation whose answers were lost are there once', async () => {
    const { key, fence } = await fenced();
    const { snapshot } = await stores.pages.snapshot(key, { fence, metadata: {} });
    faults('PUT', 'dropAnswer');
    expect(await stores.pages.startCopy({ from: key, snapshot, to: `${key}.copy` })).toBe('exists');
    expect(await stores.pages.copyState(`${key}.copy`)).toEqual({ state: 'success' });
    faults('PUT', 'dropAnswer');
    expect(await stores.pages.create(`${key}.new`, { size: 512, sequenceNumber: 3 })).toBe(
      'exists',
    );
  });

  test('a disk is read by its URL alone, and the URL’s signature stays out of errors', async () => {
    const { key, fence } = await fenced();
    await stores.pages.write(key, pattern(4096), 8192, fence);
    const sas = await sasOf(key);
    const reader = new AzureDiskImageReader(deps, { patience });
    expect(await reader.size(sas)).toBe(MIB);
    expect(await collect(reader.ranges(sas))).toEqual([{ offset: 8192, length: 4096 }]);
    expect(
      Buffer.from(await reader.read(sas, { offset: 8192, length: 4096 })).equals(pattern(4096)),
    ).toBe(true);
    const spoiled = sas.replace(/sig=[^&]+/, 'sig=AAAAspoiled');
    await expect(reader.size(spoiled)).rejects.toMatchObject({
      code: 'VaultRefusedKey',
      message: expect.not.stringContaining('spoiled'),
    });
  });

  async function sasOf(key: string): Promise<string> {
    const { BlobSASPermissions, generateBlobSASQueryParameters, StorageSharedKeyCredential } =
      await import('@azure/storage-blob');
    const credential = new StorageSharedKeyCredential(azurite.accountName, azurite.accountKey);
    const query = generateBlobSASQueryParameters(
      {
        containerName: 'vault',
        blobName: key,
        permissions: BlobSASPermissions.parse('r'),
        expiresOn: new Date(Date.now() + 3_600_000),
      },
      credential,
    );
    return `${direct.pages.url(key)}?${query}`;
  }
});

test('a vault that went away and comes back is used again by the same client', async () => {
  const key = fresh();
  await direct.objects.putIfAbsent(key, bytes('kept'));
  await azurite.restart();
  expect(await direct.objects.get(key)).toMatchObject({ body: bytes('kept') });
  await azurite.kill();
  await expect(direct.objects.get(key)).rejects.toMatchObject({ code: 'VaultUnreachable' });
});
