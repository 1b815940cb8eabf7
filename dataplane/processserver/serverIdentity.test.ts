import { createPrivateKey } from 'node:crypto';
import { beforeEach, describe, expect, test } from 'vitest';
import { StoreError } from '../../platform/storeErrors.ts';
import { ManualClock } from '../../test/fakes/manualClock.ts';
import { MemoryDisk } from '../../test/fakes/memoryDisk.ts';
import { MemoryObjectStore } from '../../test/fakes/memoryObjectStore.ts';
import { ScriptedOperator } from '../../test/fakes/scriptedOperator.ts';
import { SeededRandom } from '../../test/fakes/seededRandom.ts';
import { recordingLogger } from '../../test/fakes/silentLogger.ts';
import { decodeDocument, encodeDocument } from '../../vault/documents/codec.ts';
import { enrolmentAnswerSchema } from '../../vault/documents/enrolment.ts';
import { vaultLayout } from '../../vault/layout.ts';
import { establishIdentity } from './serverIdentity.ts';

let clock: ManualClock;
let store: MemoryObjectStore;
let disk: MemoryDisk;
let random: SeededRandom;
let operator: ScriptedOperator;
let logger: ReturnType<typeof recordingLogger>;

beforeEach(async () => {
  clock = new ManualClock();
  store = new MemoryObjectStore({ clock });
  disk = new MemoryDisk();
  random = new SeededRandom(3);
  logger = recordingLogger();
  operator = await ScriptedOperator.create({ store, clock, random });
});

function establish(options: { token?: string; signal?: AbortSignal } = {}) {
  return establishIdentity(
    { objects: store, disk, clock, random, logger },
    {
      name: 'ps1',
      token: options.token ?? operator.token,
      signal: options.signal ?? new AbortController().signal,
    },
  );
}

/** Time passes, and the operator works (unless told not to), until the work is done. Keys take real time to make. */
async function finish<T>(work: Promise<T>, answer = () => operator.answerEnrolments()): Promise<T> {
  let done = false;
  const finished = work.finally(() => {
    done = true;
  });
  finished.catch(() => undefined);
  while (!done) {
    await answer();
    await clock.advance(200);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  return await finished;
}

async function untilAsked(): Promise<void> {
  while (!store.keys().some((key) => key.startsWith(vaultLayout.enrolmentsPrefix)))
    await new Promise((resolve) => setTimeout(resolve, 1));
}

describe('a process server’s identity', () => {
  test('is got once, kept through a crash, and needs no vault the next time', async () => {
    const first = await finish(establish());
    expect(() => createPrivateKey(first.privateKeyPem)).not.toThrow();
    disk.crash();
    store.fault = () => ({ when: 'before', error: new StoreError('VaultUnreachable', 'dead') });
    expect(await establish()).toEqual(first);
  });

  test('is asked for once, whenever the process dies in between', async () => {
    const stop = new AbortController();
    const dying = establish({ signal: stop.signal });
    dying.catch(() => undefined);
    await untilAsked();
    await clock.advance(100);
    stop.abort(new Error('killed'));
    await expect(dying).rejects.toThrow('killed');
    disk.crash();
    await finish(establish());
    const requests = store
      .keys()
      .filter((key) => key.startsWith(vaultLayout.enrolmentsPrefix) && !key.includes('.answer'));
    expect(requests.length).toBe(1);
  });

  test('is refused for a wrong token, and asked for anew at the next start', async () => {
    await expect(finish(establish({ token: 'another-token-altogether' }))).rejects.toMatchObject({
      code: 'EnrolmentRefused',
      refusal: 'TokenWrong',
    });
    await finish(establish());
  });

  test('is not taken from somebody who does not know the token', async () => {
    const work = establish();
    work.catch(() => undefined);
    const forge = async () => {
      await operator.answerEnrolments();
      for (const key of store.keys().filter((each) => each.endsWith('.answer.json'))) {
        const stored = await store.get(key);
        const answer = decodeDocument(enrolmentAnswerSchema, key, stored?.body ?? new Uint8Array());
        if (answer.outcome === 'accepted')
          await store.put(
            key,
            encodeDocument(enrolmentAnswerSchema, { ...answer, mac: '00'.repeat(32) }),
          );
      }
    };
    await expect(finish(work, forge)).rejects.toMatchObject({ code: 'EnrolmentAnswerForged' });
  });

  test('is waited for while the vault does not answer, which is said once', async () => {
    let failures = 5;
    store.fault = (operation) => {
      if (operation !== 'putIfAbsent' || failures === 0) return undefined;
      failures -= 1;
      return { when: 'before', error: new StoreError('VaultUnreachable', 'no answer') };
    };
    const work = establish();
    await finish(work, async () => {
      if (failures === 0) await operator.answerEnrolments();
    });
    const said = logger.lines.filter((line) => line.fields.code === 'VaultUnreachable');
    expect(said.length).toBe(1);
  });
});
