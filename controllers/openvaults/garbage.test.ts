/** What anybody may have written into a vault: told, passed over, and never in the way of what is whole. */
import { beforeEach, describe, expect, test } from 'vitest';
import { newestPoint, newestPointAtOrBefore, readPoint } from '../../dataplane/journal/points.ts';
import { ManualClock } from '../../test/fakes/manualClock.ts';
import { MemoryObjectStore } from '../../test/fakes/memoryObjectStore.ts';
import { recordingLogger } from '../../test/fakes/silentLogger.ts';
import { machineReport, reportStatus } from '../../test/operator/peers.ts';
import { Catalog } from '../../vault/catalog.ts';
import { catalogDocumentSchema } from '../../vault/documents/catalog.ts';
import { encodeDocument } from '../../vault/documents/codec.ts';
import { enrolmentRequestSchema } from '../../vault/documents/enrolment.ts';
import { machineStatusSchema } from '../../vault/documents/machineStatus.ts';
import { pointDocumentSchema } from '../../vault/documents/point.ts';
import { vaultLayout } from '../../vault/layout.ts';
import { VaultObservation } from './observation.ts';
import { PointsReader } from './points.ts';

const machineId = 'cd'.repeat(16);
const otherId = 'ef'.repeat(16);
const HOUR_MS = 3_600_000;
let clock: ManualClock;
let objects: MemoryObjectStore;
let logger: ReturnType<typeof recordingLogger>;
let observation: VaultObservation;

beforeEach(() => {
  clock = new ManualClock();
  objects = new MemoryObjectStore({ clock });
  logger = recordingLogger();
  observation = new VaultObservation({ objects, clock, log: logger });
});

describe('documents that can’t be read', () => {
  test('are told once, and the others are read all the same', async () => {
    await reportStatus(objects, 'ps', [machineReport(machineId)]);
    await putText(vaultLayout.processServerStatus('evil'), '{"machines":[{"machineId":"x"}]}');
    await putText(vaultLayout.applierStatus('evil'), '\u0000');
    await putText(vaultLayout.catalog(otherId), '[]');
    await objects.put(
      vaultLayout.catalog(machineId),
      encodeDocument(catalogDocumentSchema, entry()),
    );
    await observation.refresh();
    await observation.refresh();
    expect(observation.machine('ps', machineId)?.machineId).toBe(machineId);
    expect(observation.catalog(machineId)?.name).toBe('web');
    const told = logger.lines.filter((line) => line.message === 'vault document refused');
    expect(told).toHaveLength(3);
  });

  test('that are too large are not even fetched', async () => {
    const key = vaultLayout.processServerStatus('huge');
    await objects.put(key, new Uint8Array((16 << 20) + 1));
    await reportStatus(objects, 'ps', [machineReport(machineId)]);
    await observation.refresh();
    expect(objects.log).not.toContainEqual({ operation: 'get', key });
    expect(observation.processServer('ps')).toBeDefined();
  });

  test('a status of 5 MB with 2,000 machines is an ordinary one', async () => {
    const reports = Array.from({ length: 2000 }, (_, index) =>
      machineReport(index.toString(16).padStart(32, '0'), {
        barriers: {
          count: 1,
          voided: 1,
          lastFreezeMs: 1,
          maxFreezeMs: 1,
          lastVoid: 'v'.repeat(2000),
        },
      }),
    );
    await reportStatus(objects, 'ps', reports);
    await observation.refresh();
    expect(observation.processServer('ps')?.machines).toHaveLength(2000);
  });

  test('a time that no date can hold is refused where it is read, not where it is shown', () => {
    const far = machineReport(machineId, { agent: { connected: true, lastSeenMs: 9e15 } });
    expect(machineStatusSchema.safeParse({ ...far, positions: {} }).success).toBe(false);
    const { agent } = machineStatusSchema.shape;
    expect(agent.safeParse({ connected: true, lastSeenMs: 9e15 }).success).toBe(false);
    expect(agent.safeParse({ connected: true, lastSeenMs: 8e15 }).success).toBe(true);
  });

  test('a catalog entry that was copied from another machine’s place is nobody’s', async () => {
    await objects.put(vaultLayout.catalog(otherId), encodeDocument(catalogDocumentSchema, entry()));
    await observation.refresh();
    expect(observation.catalog(otherId)).toBeUndefined();
    const catalog = new Catalog({ store: objects });
    await expect(catalog.read(otherId)).rejects.toMatchObject({ code: 'VaultDocumentInvalid' });
    await expect(catalog.update(otherId, (one) => one)).rejects.toMatchObject({
      code: 'VaultDocumentInvalid',
    });
  });
});

describe('requests to be enrolled that nobody answers', () => {
  test('are forgotten after a day, so that they crowd out nobody', async () => {
    const request = (index: number) => index.toString(16).padStart(64, '0');
    for (let index = 0; index < 600; index++) await ask(request(index), 'nobody');
    await observation.refresh();
    expect(observation.pendingEnrolments).toHaveLength(500);
    await clock.advance(25 * HOUR_MS);
    await ask('f'.repeat(64), 'web');
    await observation.refresh();
    expect(observation.pendingEnrolments.map((one) => one.request.name)).toEqual(['web']);
    for (let round = 0; round < 12; round++) {
      await observation.removeOldEnrolments(async () => {});
      await observation.refresh();
    }
    expect(objects.keys().filter((key) => key.startsWith('control/enrolments/'))).toHaveLength(1);
  });
});

describe('recovery points', () => {
  test('that are damaged hide none that is whole, and are not counted', async () => {
    for (const lsn of [1n, 2n, 3n]) await putPoint(lsn);
    await putText(vaultLayout.point(machineId, 4n), 'garbage');
    await objects.put(vaultLayout.point(machineId, 5n), pointOf(2n));
    await putText(`${vaultLayout.pointsPrefix(machineId)}zzz.json`, 'garbage');
    const reader = new PointsReader({ objects });
    for (let round = 0; round < 2; round++) {
      const summary = await reader.summary(machineId, { appConsistent: false });
      expect(summary.count).toBe(3);
      expect(summary.recent.map((point) => point.lsn)).toEqual([3n, 2n, 1n]);
      expect(summary.newestCrash?.lsn).toBe(3n);
    }
    expect((await newestPoint(objects, machineId))?.lsn).toBe(3n);
    const wanted = { machineId, timeMs: 1_000_000 };
    expect((await newestPointAtOrBefore(objects, wanted))?.lsn).toBe(3n);
    await expect(readPoint(objects, { machineId, lsn: 5n })).rejects.toMatchObject({
      code: 'VaultDocumentInvalid',
    });
  });

  test('of which none is whole are none', async () => {
    for (let lsn = 1n; lsn <= 70n; lsn++) await putText(vaultLayout.point(machineId, lsn), '{}');
    const reader = new PointsReader({ objects });
    expect(await reader.summary(machineId, { appConsistent: false })).toMatchObject({
      count: 0,
      recent: [],
    });
  });

  test('ten thousand of them cost a listing and two dozen reads', async () => {
    for (let lsn = 1n; lsn <= 10_000n; lsn++) await putPoint(lsn);
    const before = objects.log.length;
    const reader = new PointsReader({ objects });
    const summary = await reader.summary(machineId, { appConsistent: false });
    expect(summary).toMatchObject({ count: 10_000, oldest: { lsn: 1n } });
    expect(objects.log.length - before).toBeLessThan(30);
  });
});

async function putText(key: string, text: string): Promise<void> {
  await objects.put(key, new TextEncoder().encode(text));
}

async function putPoint(lsn: bigint): Promise<void> {
  await objects.put(vaultLayout.point(machineId, lsn), pointOf(lsn));
}

function pointOf(lsn: bigint): Uint8Array {
  const snapshot = { key: 'replica', snapshot: 'then' };
  return encodeDocument(pointDocumentSchema, {
    machineId,
    lsn,
    timeMs: Number(lsn),
    consistency: 'Crash',
    segment: { seq: 0, digest: 'a'.repeat(64), writerEpoch: 1 },
    disks: [
      {
        index: 0,
        name: 'system',
        sizeBytes: 1 << 20,
        root: 'b'.repeat(64),
        replica: snapshot,
        leaves: snapshot,
      },
    ],
    createdAt: 0,
  });
}

async function ask(id: string, name: string): Promise<void> {
  await objects.put(
    vaultLayout.enrolment(id),
    encodeDocument(enrolmentRequestSchema, { kind: 'agent', name, requestedAt: 0, csrPem: '' }),
  );
}

function entry() {
  return {
    machineId,
    name: 'web',
    namespace: 'default',
    createdAt: 0,
    writerEpoch: 1,
    disks: [],
    dataKey: [],
    activeSide: 'Source' as const,
    policy: { name: 'policy', retentionSeconds: 1 },
    target: {},
  };
}
