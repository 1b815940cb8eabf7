/** Failovers as the operator sees them: accepted once, run from the ledger, adopted, decided, deleted. The steps are scripted. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type Failover, farshoreTypes, type ProtectedVM } from '../../crds/index.ts';
import { systemClock } from '../../platform/node/clock.ts';
import { systemRandom } from '../../platform/node/random.ts';
import { StoreError } from '../../platform/storeErrors.ts';
import type { RecoveryDeps } from '../../recovery/context.ts';
import type { RunOptions } from '../../recovery/failover.ts';
import { nextOf } from '../../recovery/itinerary.ts';
import { Catalog } from '../../vault/catalog.ts';
import { encodeDocument, pointDocumentSchema } from '../../vault/documents.ts';
import { vaultLayout } from '../../vault/layout.ts';
import { type FailoverDocument, failoverDocumentSchema, LedgerEntry } from '../../vault/ledger.ts';
import { generateRecoveryKey } from '../../vault/recoveryKey.ts';
import { FakeKube } from '../fakes/kube.ts';
import { MemoryCompute } from '../fakes/memoryCompute.ts';
import { MemoryObjectStore } from '../fakes/memoryObjectStore.ts';
import { MemoryPageBlobStore } from '../fakes/memoryPageBlobStore.ts';
import { silentLogger } from '../fakes/silentLogger.ts';
import {
  create,
  eventually,
  failover,
  named,
  PASSPHRASE,
  processServer,
  protectedVM,
  type RunningOperator,
  recoveryVault,
  replicationPolicy,
  secret,
  startOperator,
  untilCondition,
} from './harness.ts';

const type = farshoreTypes.failover;
const recovery = generateRecoveryKey(systemRandom);
let kube: FakeKube;
let objects: MemoryObjectStore;
let running: RunningOperator[];
/** Steps that were done, over all operators: one that was done twice is a machine that was made twice. */
let done: string[];
/** Steps that wait until the test lets them go. */
let held: Map<string, Promise<void>>;
/** Steps that fail for good, with the failover. */
let failing: Set<string>;

beforeEach(() => {
  kube = new FakeKube();
  objects = new MemoryObjectStore({ clock: systemClock });
  running = [];
  done = [];
  held = new Map();
  failing = new Set();
});

afterEach(async () => {
  for (const one of running) await one.stop();
});

/** Does each step of the real itinerary by writing it down. */
async function scripted(name: string, deps: RecoveryDeps, options: RunOptions) {
  const entry = await LedgerEntry.read(deps.objects, name);
  if (entry === undefined) throw new Error('not in the ledger');
  for (;;) {
    options.signal.throwIfAborted();
    options.onChange?.(entry.document);
    const next = nextOf(entry.document);
    if (next.kind === 'rest') return entry.document;
    await deps.assertInControl();
    if (next.kind === 'settle') {
      await entry.update({ outcome: next.outcome });
      continue;
    }
    const startedAt = deps.clock.now();
    const others = entry.document.steps.filter((step) => step.name !== next.step);
    await entry.update({
      steps: [...others, { name: next.step, state: 'Running', startedAt, attempts: 1 }],
    });
    options.onChange?.(entry.document);
    await aborted(held.get(next.step), options.signal);
    done.push(next.step);
    if (failing.has(next.step))
      await entry.update({ failure: { step: next.step, code: 'Scripted', message: 'It failed.' } });
    await entry.update({ steps: [...others, finished(next.step, startedAt)] });
  }
}

function finished(name: FailoverDocument['steps'][number]['name'], startedAt: number) {
  return {
    name,
    state: 'Done' as const,
    startedAt,
    finishedAt: startedAt,
    attempts: 1,
    message: 'done',
  };
}

async function aborted(wait: Promise<void> | undefined, signal: AbortSignal): Promise<void> {
  if (wait === undefined) return;
  const { promise, reject } = Promise.withResolvers<never>();
  const abort = () => reject(signal.reason);
  signal.addEventListener('abort', abort, { once: true });
  try {
    await Promise.race([wait, promise]);
  } finally {
    signal.removeEventListener('abort', abort);
  }
}

function hold(step: string): () => void {
  const { promise, resolve } = Promise.withResolvers<void>();
  held.set(step, promise);
  return () => {
    held.delete(step);
    resolve();
  };
}

function operate(options: { kube?: FakeKube; holder?: string } = {}): RunningOperator {
  const pages = new MemoryPageBlobStore({ clock: systemClock });
  const compute = new MemoryCompute({ pages });
  const started = startOperator({
    kube: options.kube ?? kube,
    holder: options.holder ?? 'first cluster',
    log: silentLogger,
    runFailover: scripted,
    stores: () => ({
      objects,
      pages,
      compute,
      images: compute,
      ensureContainer: async () => {},
      close: async () => {},
    }),
  });
  running.push(started);
  return started;
}

async function prepare(into = kube): Promise<string> {
  await create(
    into,
    secret('azure', { clientSecret: 'secret', connectionString: 'UseDevelopmentStorage=true' }),
    secret('passphrase', { passphrase: PASSPHRASE }),
    recoveryVault({ recipients: [recovery.publicString] }),
    replicationPolicy(),
    processServer(),
    protectedVM(),
  );
  await untilCondition(into, farshoreTypes.protectedVM, named('web'), {
    type: 'Accepted',
    status: 'True',
  });
  const machineId = into.peek<ProtectedVM>(farshoreTypes.protectedVM, named('web'))?.status
    ?.machineId;
  if (machineId === undefined) throw new Error('no machineId');
  await putPoint(machineId);
  return machineId;
}

/** Likewise with a second namespace that the vault allows, and machine db in it. */
async function prepareOther(): Promise<void> {
  await prepare();
  await allow(['other']);
  const vaultRef = { name: 'vault', namespace: 'default' };
  await create(
    kube,
    secret('passphrase', { passphrase: PASSPHRASE }, 'other'),
    replicationPolicy('policy', 'other'),
    processServer('ps2', { vaultRef }, 'other'),
    protectedVM('db', { vaultRef, processServerRef: { name: 'ps2' } }, 'other'),
  );
  await untilCondition(kube, farshoreTypes.protectedVM, named('db', 'other'), {
    type: 'Accepted',
    status: 'True',
  });
  const machine = kube.peek<ProtectedVM>(farshoreTypes.protectedVM, named('db', 'other'));
  await putPoint(machine?.status?.machineId ?? '');
}

async function allow(allowedNamespaces: string[]): Promise<void> {
  await kube.patch(farshoreTypes.recoveryVault, named('vault'), {
    merge: { spec: { allowedNamespaces } },
  });
}

async function enterForOther(key: string): Promise<FailoverDocument> {
  const machine = kube.peek<ProtectedVM>(farshoreTypes.protectedVM, named('db', 'other'));
  const document: FailoverDocument = {
    name: 'move',
    failoverId: 'c'.repeat(32),
    namespace: 'other',
    uid: 'another',
    installationId: 'd'.repeat(32),
    acceptedAt: systemClock.now(),
    outcome: 'FailedOver',
    steps: [],
    request: {
      type: 'Unplanned',
      machineId: machine?.status?.machineId ?? '',
      machineName: 'db',
      recoveryPoint: { type: 'Latest' },
      powerOffSource: false,
      verify: 'Full',
      target: {
        name: 'db',
        resourceGroup: 'recovery',
        location: 'westeurope',
        size: 'Standard_B2s',
        osType: 'Linux',
        generation: 'V1',
        diskType: 'StandardSSD_LRS',
        nics: [{ resourceGroup: 'recovery', network: 'production', subnet: 'default' }],
        tags: {},
        storageAccountId: '/subscriptions/x/storageAccounts/y',
      },
    },
  };
  await objects.putIfAbsent(key, encodeDocument(failoverDocumentSchema, document));
  return document;
}

async function putPoint(machineId: string): Promise<void> {
  const snapshot = { key: 'replica', snapshot: 'then' };
  const point = {
    machineId,
    lsn: 12n,
    timeMs: systemClock.now() - 20_000,
    consistency: 'Crash' as const,
    segment: { seq: 0, digest: 'a'.repeat(64), writerEpoch: 1 },
    disks: [
      {
        index: 0,
        name: 'system',
        sizeBytes: 8 << 20,
        root: 'b'.repeat(64),
        replica: snapshot,
        leaves: snapshot,
      },
    ],
    createdAt: systemClock.now(),
  };
  await objects.putIfAbsent(
    vaultLayout.point(machineId, 12n),
    encodeDocument(pointDocumentSchema, point),
  );
}

async function untilPhase(
  name: string,
  phase: string,
  from = kube,
  namespace = 'default',
): Promise<Failover> {
  return await eventually(() => {
    const found = from.peek<Failover>(type, named(name, namespace));
    expect(found?.status?.phase).toBe(phase);
    return found as Failover;
  });
}

async function desire(name: string, desiredState: 'Committed' | 'CleanedUp'): Promise<void> {
  await kube.patch(type, named(name), { merge: { spec: { desiredState } } });
}

describe('a failover', () => {
  test('runs its steps, rests, and is committed when somebody says so', async () => {
    operate();
    await prepare();
    await create(kube, failover('move'));
    const up = await untilPhase('move', 'FailedOver');
    expect(up.status?.steps?.map((step) => step.state)).not.toContain('Pending');
    expect(done).toContain('SealJournal');
    await untilCondition(kube, type, named('move'), { type: 'FailedOver', status: 'True' });
    const steps = done.length;
    await systemClock.sleep(300);
    expect(done).toHaveLength(steps);
    await desire('move', 'Committed');
    await untilPhase('move', 'Committed');
    await untilCondition(kube, type, named('move'), { type: 'Committed', status: 'True' });
  });

  test('goes on where it was after the operator died in a step', async () => {
    const first = operate();
    await prepare();
    const release = hold('CreateVm');
    await create(kube, failover('move'));
    await eventually(() =>
      expect(kube.peek<Failover>(type, named('move'))?.status?.currentStep).toBe('CreateVm'),
    );
    await first.stop();
    release();
    operate();
    await untilPhase('move', 'FailedOver');
    expect(new Set(done).size).toBe(done.length);
  });

  test('that is in the ledger is adopted by a re-created resource, and nothing is made again', async () => {
    operate();
    await prepare();
    await create(kube, failover('move'));
    await untilPhase('move', 'FailedOver');
    const steps = done.length;
    await kube.remove(type, named('move'));
    await eventually(() => expect(kube.peek(type, named('move'))).toBeUndefined());
    await create(kube, failover('move'));
    await untilPhase('move', 'FailedOver');
    await untilCondition(kube, type, named('move'), {
      type: 'Accepted',
      status: 'True',
      reason: 'AdoptedFromLedger',
    });
    expect(done).toHaveLength(steps);
  });

  test('is shown, not run, by a second cluster that stands by', async () => {
    operate();
    await prepare();
    await create(kube, failover('move'));
    await untilPhase('move', 'FailedOver');
    const steps = done.length;
    const second = new FakeKube();
    operate({ kube: second, holder: 'second cluster' });
    await create(
      second,
      secret('azure', { clientSecret: 'secret', connectionString: 'UseDevelopmentStorage=true' }),
      recoveryVault({ recipients: [recovery.publicString] }),
      replicationPolicy(),
      processServer(),
      protectedVM(),
      failover('move'),
      failover('another'),
    );
    await untilPhase('move', 'FailedOver', second);
    await untilCondition(second, type, named('another'), {
      type: 'Accepted',
      status: 'False',
      reason: 'NotInControl',
    });
    expect(done).toHaveLength(steps);
  });

  test('of a machine that is in one never begins, not even when that one has ended', async () => {
    operate();
    const machineId = await prepare();
    await create(kube, failover('first', { type: 'Test' }));
    await untilPhase('first', 'FailedOver');
    await create(kube, failover('second'));
    const condition = await untilCondition(kube, type, named('second'), {
      type: 'Accepted',
      status: 'False',
      reason: 'MachineBusy',
    });
    expect(condition.message).toContain('first');
    await desire('first', 'CleanedUp');
    await untilPhase('first', 'CleanedUp');
    await systemClock.sleep(300);
    await untilPhase('second', 'Rejected');
    expect(await LedgerEntry.read(objects, 'second')).toBeUndefined();
    await new Catalog({ store: objects }).update(machineId, (entry) => ({
      ...entry,
      activeFailover: 'elsewhere',
    }));
    await create(kube, failover('third'));
    await untilCondition(kube, type, named('third'), {
      type: 'Accepted',
      status: 'False',
      reason: 'MachineBusy',
    });
  });

  test('a Test that is deleted goes only when everything that it made is removed', async () => {
    operate();
    await prepare();
    await create(kube, failover('drill', { type: 'Test' }));
    await untilPhase('drill', 'FailedOver');
    const release = hold('RemoveVm');
    await kube.remove(type, named('drill'));
    await untilPhase('drill', 'Deleting');
    await systemClock.sleep(200);
    expect(kube.peek(type, named('drill'))).toBeDefined();
    release();
    await eventually(() => expect(kube.peek(type, named('drill'))).toBeUndefined());
    expect((await LedgerEntry.read(objects, 'drill'))?.document.outcome).toBe('CleanedUp');
  });

  test('a Test that failed its health check and is deleted goes only when its machine is removed', async () => {
    operate();
    await prepare();
    failing.add('HealthCheck');
    await create(kube, failover('drill', { type: 'Test' }));
    await untilPhase('drill', 'Failed');
    const release = hold('RemoveVm');
    await kube.remove(type, named('drill'));
    await untilPhase('drill', 'Deleting');
    await systemClock.sleep(200);
    expect(kube.peek(type, named('drill'))).toBeDefined();
    release();
    await eventually(() => expect(kube.peek(type, named('drill'))).toBeUndefined());
    expect(done).toContain('RemoveDisks');
    expect((await LedgerEntry.read(objects, 'drill'))?.document.outcome).toBe('CleanedUp');
  });

  test('a Test that is deleted while its vault does not allow its namespace is held: nobody could clean up', async () => {
    operate();
    await prepareOther();
    await create(kube, failover('drill', { type: 'Test', machineRef: { name: 'db' } }, 'other'));
    await untilPhase('drill', 'FailedOver', kube, 'other');
    await allow([]);
    await untilCondition(kube, type, named('drill', 'other'), {
      type: 'Accepted',
      status: 'False',
      reason: 'VaultNotAllowed',
    });
    await kube.remove(type, named('drill', 'other'));
    await untilCondition(kube, type, named('drill', 'other'), {
      type: 'Ready',
      status: 'False',
      reason: 'VaultNotAllowed',
    });
    await allow(['other']);
    await eventually(() => expect(kube.peek(type, named('drill', 'other'))).toBeUndefined());
    expect(done).toContain('RemoveVm');
  });

  test('that was accepted by an operator which died before it said so is not let go unread', async () => {
    const first = operate();
    await prepare();
    await create(kube, failover('drill', { type: 'Test' }));
    await untilPhase('drill', 'FailedOver');
    await first.stop();
    // As if the operator had died between the ledger and the status.
    const { status: _, ...unseen } = kube.peek<Failover>(type, named('drill')) as Failover;
    kube.seed(type, unseen);
    await kube.remove(type, named('drill'));
    objects.fault = () => ({ when: 'before', error: new StoreError('VaultUnreachable', 'gone.') });
    operate();
    await untilCondition(kube, type, named('drill'), {
      type: 'Ready',
      status: 'False',
      reason: 'VaultNotReady',
    });
    objects.fault = undefined;
    await eventually(() => expect(kube.peek(type, named('drill'))).toBeUndefined());
    expect((await LedgerEntry.read(objects, 'drill'))?.document.outcome).toBe('CleanedUp');
  });

  test('of a name that another namespace used in the same vault is refused, and moves nothing there', async () => {
    operate();
    await prepareOther();
    await create(kube, failover('move'));
    await untilPhase('move', 'FailedOver');
    const steps = done.length;
    const theirs = failover(
      'move',
      { machineRef: { name: 'db' }, desiredState: 'Committed' },
      'other',
    );
    await create(kube, theirs);
    const condition = await untilCondition(kube, type, named('move', 'other'), {
      type: 'Accepted',
      status: 'False',
      reason: 'NameTaken',
    });
    expect(condition.message).toContain('default/move');
    expect(condition.message).toContain('web');
    await kube.remove(type, named('move', 'other'));
    await eventually(() => expect(kube.peek(type, named('move', 'other'))).toBeUndefined());
    expect(done).toHaveLength(steps);
    expect((await LedgerEntry.read(objects, 'move'))?.document.desired).toBeUndefined();
  });

  test('whose name is entered by another namespace at the same moment does not take that one for its own', async () => {
    operate();
    await prepareOther();
    const key = vaultLayout.failover('move');
    let theirs: FailoverDocument | undefined;
    objects.interleave = async (operation, at) => {
      if (operation !== 'putIfAbsent' || at !== key || theirs !== undefined) return;
      objects.interleave = undefined;
      theirs = await enterForOther(key);
    };
    await create(kube, failover('move', { desiredState: 'Committed' }));
    await untilCondition(kube, type, named('move'), {
      type: 'Accepted',
      status: 'False',
      reason: 'NameTaken',
    });
    await systemClock.sleep(200);
    expect(done).toEqual([]);
    expect((await LedgerEntry.read(objects, 'move'))?.document).toEqual(theirs);
  });

  test('of another type under a name that was used is refused, and its deletion changes nothing', async () => {
    operate();
    await prepare();
    await create(kube, failover('move'));
    await untilPhase('move', 'FailedOver');
    await kube.remove(type, named('move'));
    await eventually(() => expect(kube.peek(type, named('move'))).toBeUndefined());
    await create(kube, failover('move', { type: 'Test' }));
    await untilCondition(kube, type, named('move'), {
      type: 'Accepted',
      status: 'False',
      reason: 'NameTaken',
    });
    await kube.remove(type, named('move'));
    await eventually(() => expect(kube.peek(type, named('move'))).toBeUndefined());
    expect((await LedgerEntry.read(objects, 'move'))?.document.desired).toBeUndefined();
  });

  test('that is deleted while it runs ends first, and is let go by force at once', async () => {
    operate();
    await prepare();
    const release = hold('ImportDisks');
    await create(kube, failover('move'));
    await eventually(() =>
      expect(kube.peek<Failover>(type, named('move'))?.status?.currentStep).toBe('ImportDisks'),
    );
    await kube.remove(type, named('move'));
    await untilCondition(kube, type, named('move'), {
      type: 'Ready',
      status: 'False',
      reason: 'DeletionBlocked',
    });
    await kube.patch(type, named('move'), {
      merge: { metadata: { annotations: { 'farshore.dev/force-delete': '' } } },
    });
    await eventually(() => expect(kube.peek(type, named('move'))).toBeUndefined());
    expect((await LedgerEntry.read(objects, 'move'))?.document.outcome).toBe('Running');
    release();
  });

  test('stops when another installation takes control of the vault', async () => {
    operate();
    await prepare();
    const release = hold('CreateNics');
    await create(kube, failover('move'));
    await eventually(() =>
      expect(kube.peek<Failover>(type, named('move'))?.status?.currentStep).toBe('CreateNics'),
    );
    const stored = await objects.get(vaultLayout.controller);
    const controller = JSON.parse(new TextDecoder().decode(stored?.body)) as object;
    await objects.put(
      vaultLayout.controller,
      new TextEncoder().encode(
        JSON.stringify({ ...controller, installationId: 'f'.repeat(32), controllerEpoch: 2 }),
      ),
    );
    await untilCondition(kube, farshoreTypes.recoveryVault, named('vault'), {
      type: 'InControl',
      status: 'False',
    });
    release();
    await systemClock.sleep(300);
    expect(done).not.toContain('CreateVm');
  });
});
