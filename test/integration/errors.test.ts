/**
 * Errors that a user meets must say what is wrong, in status and logs, and lose nothing. Which test holds which:
 *
 * | what is wrong                              | code                          | test                                                                |
 * |--------------------------------------------|-------------------------------|---------------------------------------------------------------------|
 * | wrong passphrase                           | WrongPassphrase               | agent ('with the wrong passphrase'), processserver ('enrolment'),   |
 * |                                            |                               | test/operator/acceptance ('a wrong passphrase, …')                  |
 * | a certificate of another machine           | CertificateOfAnotherMachine   | processserver ('does not let one machine’s certificate …')          |
 * | a name already used in the vault           | NameTaken                     | operator, test/operator/acceptance ('a machine name that …')        |
 * | an unknown vault, policy, process server   | VaultNotFound, PolicyNotFound,| test/operator/acceptance ('an unknown reference')                   |
 * |                                            | ProcessServerNotFound         |                                                                     |
 * | a vault that does not answer               | VaultUnreachable              | processserver ('waits for a vault …', 'is open while the vault is   |
 * |                                            |                               | dead'), blobFaults, test/operator/vault ('that refuses …')          |
 * | a vault that refuses the key               | VaultRefusedKey               | processserver ('with a key …'), here: while all is running          |
 * | a vault of a newer format                  | VaultFormatTooNew             | processserver ('on a vault of a newer format …'), cli,              |
 * |                                            |                               | test/operator/vault ('that refuses …')                              |
 * | a disk that changed size                   | DiskResized                   | here, and in a guest: guest ('a disk that was resized …')           |
 * | a disk that shrank                         | DiskShrunk                    | here; dataplane/agent/replication ('a disk that was shrunk …')      |
 * | a disk that vanished                       | DiskVanished                  | guest ('a disk that was unplugged …')                               |
 * | a disk that is not there to begin with     | (disks[].error)               | agent ('says which disk can not be had, …')                         |
 * | a frame that is cut, too long, flipped     | FrameCut, FrameTooLong,       | processserver ('frames that are …'); here: on the way of a real     |
 * |                                            | FrameDamaged                  | agent                                                               |
 * | a segment that is cut, too long, flipped   | SegmentDamaged, …             | dataplane/journal/segment, dataplane/applier/applier; here: in the  |
 * |                                            |                               | vault, met by a real applier                                        |
 *
 * Files without a directory are of test/integration/. What only a Failover can meet (targets, points) is in test/operator/failover and recovery/failover.
 */
import net from 'node:net';
import path from 'node:path';
import { expect } from 'vitest';
import { Applier } from '../../dataplane/applier/applier.ts';
import { ApplierMetrics } from '../../dataplane/applier/metrics.ts';
import { inlineCodec } from '../../dataplane/journal/segmentCodec.ts';
import { systemClock } from '../../platform/node/clock.ts';
import { systemRandom } from '../../platform/node/random.ts';
import { applierStatusSchema } from '../../vault/documents/applierStatus.ts';
import { catalogDocumentSchema } from '../../vault/documents/catalog.ts';
import { decodeDocument, encodeDocument } from '../../vault/documents/codec.ts';
import { boxContext, generateBoxKey, sealKeyForAll } from '../../vault/keys.ts';
import { vaultLayout } from '../../vault/layout.ts';
import { listPoints } from '../../vault/pointIndex.ts';
import { recordingLogger } from '../fakes/silentLogger.ts';
import type { Site, SourceDisk } from '../fixtures/site.ts';
import { expectNewestPoint, expectSourceRecovered, test } from '../fixtures/siteTest.ts';
import { sh } from './capture/machine.ts';

const MIB = 1 << 20;

test('a vault that begins to refuse the key is told of, and what was written meanwhile arrives once it takes it again', async ({
  site,
}) => {
  const disk = site.disk('disk', 64 * MIB);
  const mount = site.machine.mount(disk.device);
  const { link, connectionString } = await site.vaultLink();
  const server = await site.startServer({ connectionString });
  await site.assign([disk]);
  await site.startAgent();
  const before = await site.nextBarrier();

  link.decide = () => ({ status: 403, code: 'AuthenticationFailed' });
  sh(`dd if=/dev/urandom of=${mount}/meanwhile bs=1M count=3 oflag=direct status=none`);
  await server.logged('The status can not be written to the vault', 'VaultRefusedKey');
  const upload = await server.logged("can't put the next segment", 'VaultRefusedKey');
  expect(String(upload.msg)).toMatch(/key|credential/i);

  link.decide = () => 'pass';
  const after = await site.nextBarrier();
  expect(after.uploadedBarrier?.lsn).toBeGreaterThan(before.uploadedBarrier?.lsn ?? 0n);
  expect(after.errors).toEqual([]);
  await expectSourceRecovered(site, [disk]);
});

test('a disk that grows is told of, compared anew and recovered at its new size', async ({
  site,
}) => {
  const disk = site.disk('grows', 64 * MIB);
  await site.startServer();
  await site.assign([disk]);
  const agent = await site.startAgent();
  sh(`dd if=/dev/urandom of=${disk.device} bs=1M count=8 oflag=direct status=none`);
  const before = await site.nextBarrier();
  expect(before.disks).toMatchObject([{ sizeBytes: 64 * MIB }]);

  sh(`truncate -s ${96 * MIB} ${disk.image}; losetup -c ${disk.device}`);
  sh(`dd if=/dev/urandom of=${disk.device} bs=1M count=4 seek=80 oflag=direct status=none`);
  const line = await agent.logged('Tracking is lost');
  expect(JSON.stringify(line)).toContain(`was resized from ${64 * MIB} to ${96 * MIB} bytes`);
  const resynced = await site.statusWhen(
    'the disk was compared anew',
    ({ lastResync }) => lastResync?.reason === 'DiskResized',
  );
  expect(resynced.disks).toMatchObject([{ sizeBytes: 96 * MIB }]);
  await site.nextBarrier();
  await expectSourceRecovered(site, [{ ...disk, sizeBytes: 96 * MIB }]);
});

test('a disk that shrank is refused with what to do, and protected on once it has its size back', async ({
  site,
}) => {
  const disk = site.disk('shrinks', 64 * MIB);
  await site.startServer();
  // As the operator tells it, once it is known.
  const { device, sizeBytes } = disk;
  await site.assign([disk], { disks: [{ index: 0, name: 'disk0', device, sizeBytes }] });
  await site.startAgent();
  sh(`dd if=/dev/urandom of=${disk.device} bs=1M count=8 oflag=direct status=none`);
  const before = await site.nextBarrier();

  sh(`truncate -s ${48 * MIB} ${disk.image}; losetup -c ${disk.device}`);
  const refused = await site.statusWhen(
    'the disk is refused',
    ({ disks }) => disks[0]?.error !== undefined,
  );
  const said = JSON.stringify(refused.disks[0]?.error);
  expect(said).toContain(`${disk.device} has ${48 * MIB} bytes; ${64 * MIB} are protected.`);
  expect(said).toContain('Give it its size back, or');
  // What there was stays as it was.
  expect(refused.uploadedBarrier?.lsn).toBeGreaterThanOrEqual(before.uploadedBarrier?.lsn ?? 0n);

  sh(`truncate -s ${64 * MIB} ${disk.image}; losetup -c ${disk.device}`);
  await site.statusWhen('the disk is whole', ({ disks }) => disks[0]?.error === undefined);
  await site.nextBarrier();
  await expectSourceRecovered(site, [disk]);
});

test('a frame that is flipped on its way ends the session with a clear error, and the next one loses nothing', async ({
  site,
}) => {
  const disk = site.disk('disk', 64 * MIB);
  const mount = site.machine.mount(disk.device);
  const server = await site.startServer();
  const flipping = await flippingProxy(await server.port());
  site.onEnd(flipping.close);
  await site.assign([disk]);
  const agent = await site.startAgent({ ports: [flipping.port] });
  await site.nextBarrier();
  const sessions = agent.log.filter(({ msg }) => msg === 'Connected').length;
  flipping.flipNext();
  sh(`dd if=/dev/urandom of=${mount}/more bs=1M count=24 oflag=direct status=none`);
  // TLS finds it first: its record does not authenticate.
  const line = await server.logged('The connection with the agent failed');
  expect(line.code).toMatch(/ConnectionLost|FrameDamaged/);
  await site.nextBarrier();
  expect(agent.log.filter(({ msg }) => msg === 'Connected').length).toBeGreaterThan(sessions);
  expect(agent.log.filter(({ msg }) => msg === 'A resync begins')).toHaveLength(1);
  await expectSourceRecovered(site, [disk]);
});

test.for<[string, (bytes: Buffer) => Buffer]>([
  ['flipped', (bytes) => bytes.fill((bytes[5000] ?? 0) ^ 1, 5000, 5001)],
  ['cut', (bytes) => bytes.subarray(0, bytes.length - 100)],
  ['too long', (bytes) => Buffer.concat([bytes, Buffer.alloc(100)])],
])(
  'a segment that is %s in the vault stops the applier there with a clear error, and it goes on once the blob is restored',
  async ([, damage], { site }) => {
    const disk = site.disk('disk', 32 * MIB);
    sh(`dd if=/dev/urandom of=${disk.device} bs=1M count=2 oflag=direct status=none`);
    await site.startServer();
    await site.assign([disk]);
    await site.startAgent();
    const first = await site.nextBarrier();
    const pointed = first.uploadedBarrier?.lsn ?? 0n;
    // Later there might be too many barriers for each to become a point.
    await site.makePoints([disk]);
    const segments = await segmentKeys(site);
    sh(`dd if=/dev/urandom of=${disk.device} bs=1M count=2 seek=9 oflag=direct status=none`);
    await site.nextBarrier();
    await site.finalBarrier([disk]);
    const { objects } = site.stores;
    const [key = ''] = (await largeSegments(site)).filter((name) => !segments.includes(name));
    const whole = Buffer.from((await objects.get(key))?.body ?? []);
    await objects.put(key, damage(Buffer.from(whole)));

    const applier = await startApplier(site, disk);
    const failed = await applier.statusWhen(({ error }) => error !== undefined);
    expect(failed.error?.code).toMatch(/^(Segment|Chain)/);
    expect(failed.error?.message).toContain(path.basename(key));
    expect(applier.lines.some(({ fields }) => fields.code === failed.error?.code)).toBe(true);
    const { lsns } = await listPoints(objects, site.machineId);
    expect(lsns).toContain(pointed);

    await objects.put(key, whole);
    const status = await site.status();
    const last = status?.finalBarrier?.lsn ?? 0n;
    await applier.statusWhen(({ recoveryPointLsn }) => recoveryPointLsn >= last);
    await applier.stop();
    await expectNewestPoint(site, [disk], last);
  },
);

async function segmentKeys(site: Site): Promise<string[]> {
  const keys: string[] = [];
  for await (const { key } of site.stores.objects.list(vaultLayout.journalPrefix(site.machineId)))
    keys.push(key);
  return keys;
}

/** Those that hold more than a barrier. */
async function largeSegments(site: Site): Promise<string[]> {
  const keys: string[] = [];
  for await (const { key, size } of site.stores.objects.list(
    vaultLayout.journalPrefix(site.machineId),
  ))
    if (size > MIB) keys.push(key);
  return keys;
}

/** The applier over the real vault, with the machine in the catalog. */
async function startApplier(site: Site, disk: SourceDisk) {
  const key = generateBoxKey(systemRandom);
  const { objects, pages } = site.stores;
  const { machineId, operator } = site;
  const { vaultId } = operator.vault;
  await objects.put(
    vaultLayout.catalog(machineId),
    encodeDocument(catalogDocumentSchema, {
      machineId,
      name: 'db1',
      namespace: 'default',
      createdAt: 0,
      writerEpoch: 1,
      disks: [{ index: 0, name: 'disk0', device: disk.device, sizeBytes: disk.sizeBytes }],
      dataKey: sealKeyForAll({
        random: systemRandom,
        recipients: [{ kind: 'applier', publicKey: key.publicKey }],
        secret: operator.dataKey(machineId),
        context: boxContext.dataKey(vaultId, machineId),
      }),
      activeSide: 'Source',
      policy: { name: 'policy', retentionSeconds: 86_400 },
      target: {},
      nextDiskIndex: 1,
    }),
  );
  const logger = recordingLogger();
  const stopping = new AbortController();
  const applier = new Applier(
    {
      objects,
      pages,
      clock: systemClock,
      random: systemRandom,
      logger,
      metrics: new ApplierMetrics(),
      codec: inlineCodec,
    },
    { name: 'applier', version: '1', vaultId, key },
  );
  const done = applier.run(stopping.signal);
  const stop = async () => {
    stopping.abort();
    await done;
  };
  site.onEnd(stop);
  const at = vaultLayout.applierStatus('applier');
  type Machine = ReturnType<typeof applierStatusSchema.parse>['machines'][number];
  return {
    stop,
    lines: logger.lines,
    statusWhen: async (holds: (machine: Machine) => boolean): Promise<Machine> => {
      for (const deadline = performance.now() + 60_000; ; ) {
        const stored = await objects.get(at);
        const [machine] =
          stored === undefined ? [] : decodeDocument(applierStatusSchema, at, stored.body).machines;
        if (machine !== undefined && holds(machine)) return machine;
        if (performance.now() > deadline)
          throw new Error(`the applier's status never came to be so: ${stored?.body}`);
        await systemClock.sleep(200);
      }
    },
  };
}

/** Passes everything on, and flips one bit of what the connecting side sends when told to. */
async function flippingProxy(target: number) {
  let flip = false;
  const sockets = new Set<net.Socket>();
  const server = net.createServer((near) => {
    const far = net.connect(target, '127.0.0.1');
    for (const [one, other] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(one);
      one.on('error', () => other.destroy());
      one.on('close', () => {
        sockets.delete(one);
        other.destroy();
      });
    }
    far.pipe(near);
    near.on('data', (chunk) => {
      if (flip && chunk.length > 8192) {
        flip = false;
        chunk.writeUInt8((chunk[6000] ?? 0) ^ 4, 6000);
      }
      if (!far.write(chunk)) near.pause();
    });
    far.on('drain', () => near.resume());
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    port: (server.address() as net.AddressInfo).port,
    flipNext: () => {
      flip = true;
    },
    close: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
