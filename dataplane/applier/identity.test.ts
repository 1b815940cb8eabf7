import { createHash } from 'node:crypto';
import { beforeEach, expect, test, vi } from 'vitest';
import { ManualClock } from '../../test/fakes/manualClock.ts';
import { MemoryDisk } from '../../test/fakes/memoryDisk.ts';
import { MemoryObjectStore } from '../../test/fakes/memoryObjectStore.ts';
import { SeededRandom } from '../../test/fakes/seededRandom.ts';
import { silentLogger } from '../../test/fakes/silentLogger.ts';
import { certificateRequestDer } from '../../vault/authority.ts';
import { decodeDocument, encodeDocument } from '../../vault/documents/codec.ts';
import { enrolmentAnswerSchema, enrolmentRequestSchema } from '../../vault/documents/enrolment.ts';
import { answerMac, tokenKey, tokenRequestMac } from '../../vault/enrolmentProof.ts';
import { encodePublicKey } from '../../vault/keys.ts';
import { vaultLayout } from '../../vault/layout.ts';
import { establishIdentity } from './identity.ts';

const token = 'a-one-time-token-of-the-bootstrap';
let clock: ManualClock;
let objects: MemoryObjectStore;
let disk: MemoryDisk;
let random: SeededRandom;

beforeEach(() => {
  clock = new ManualClock();
  random = new SeededRandom(3);
  objects = new MemoryObjectStore({ clock });
  disk = new MemoryDisk();
});

function establish(options: { signal?: AbortSignal } = {}) {
  return establishIdentity(
    { objects, disk, clock, random, logger: silentLogger },
    {
      name: 'applier',
      vaultId: 'cd'.repeat(16),
      token,
      signal: options.signal ?? new AbortController().signal,
    },
  );
}

function requestKeys(): string[] {
  return objects.keys().filter((key) => !key.endsWith('.answer.json'));
}

/** Requests are signed off the main thread: real time passes until they are there. */
async function requestsAre(count: number): Promise<void> {
  await vi.waitFor(() => expect(requestKeys()).toHaveLength(count));
}

async function request() {
  await requestsAre(1);
  const [key = ''] = requestKeys();
  const body = (await objects.get(key))?.body ?? new Uint8Array();
  return decodeDocument(enrolmentRequestSchema, key, body);
}

async function answer(
  asked: Awaited<ReturnType<typeof request>>,
  options: { token: string; refuse?: boolean },
): Promise<void> {
  const id = createHash('sha256').update(certificateRequestDer(asked.csrPem)).digest('hex');
  const shown = { certificatePem: '', caCertificatePem: 'CA' };
  const document = options.refuse
    ? { outcome: 'refused' as const, code: 'TokenSpent', message: 'used before' }
    : {
        outcome: 'accepted' as const,
        ...shown,
        mac: answerMac({ key: tokenKey(options.token), ...shown }),
      };
  await objects.putIfAbsent(
    vaultLayout.enrolmentAnswer(id),
    encodeDocument(enrolmentAnswerSchema, document),
  );
  await clock.advance(5000);
}

test('asks with a proof of its token over its key, and keeps both for good', async () => {
  const established = establish();
  const asked = await request();
  await answer(asked, { token });
  const key = await established;
  const encryptionKey = encodePublicKey(key.publicKey);
  expect(asked).toMatchObject({ kind: 'applier', name: 'applier', encryptionKey });
  expect(asked.tokenMac).toBe(
    tokenRequestMac({
      key: tokenKey(token),
      csrDer: certificateRequestDer(asked.csrPem),
      name: 'applier',
      encryptionKey,
    }),
  );
  expect((await establish()).id).toBe(key.id);
  expect(requestKeys()).toHaveLength(1);
});

test('a restart before the answer goes on with the same request and key', async () => {
  const stopped = new AbortController();
  const first = establish({ signal: stopped.signal });
  const asked = await request();
  stopped.abort(new Error('stopped'));
  await expect(first).rejects.toThrow('stopped');
  const second = establish();
  await clock.advance(5000);
  expect(requestKeys()).toHaveLength(1);
  await answer(asked, { token });
  expect(encodePublicKey((await second).publicKey)).toBe(asked.encryptionKey);
});

test('a refusal is an error with its code, and the next start asks anew', async () => {
  const established = establish();
  const refused = expect(established).rejects.toMatchObject({
    code: 'EnrolmentRefused',
    refusal: 'TokenSpent',
  });
  await answer(await request(), { token, refuse: true });
  await refused;
  const stop = new AbortController();
  const again = establish({ signal: stop.signal });
  await requestsAre(2);
  stop.abort(new Error('stopped'));
  await expect(again).rejects.toThrow('stopped');
});

test('an answer by somebody who does not know the token is refused', async () => {
  const established = establish();
  const forged = expect(established).rejects.toMatchObject({ code: 'EnrolmentAnswerForged' });
  await answer(await request(), { token: 'another-token-altogether' });
  await forged;
});
