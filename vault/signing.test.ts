import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { z } from 'zod';
import { SeededRandom } from '../test/fakes/seededRandom.ts';
import { encodeDocument } from './documents/codec.ts';
import { signedSchema } from './documents/signed.ts';
import {
  type AcceptedDocument,
  decodeSigningKey,
  encodeSigningKey,
  FreshnessGuard,
  generateSigningKey,
  openSigned,
  signPayload,
  signText,
  verifySigned,
  verifyText,
} from './signing.ts';

const random = new SeededRandom(2);
const key = generateSigningKey(random);
const stranger = generateSigningKey(random);
const schema = z.object({ machines: z.array(z.string()) });

describe('signatures', () => {
  test('any text verifies, and no other text or key does', () => {
    fc.assert(
      fc.property(fc.string(), fc.string(), (text, other) => {
        const signature = signText(key, text);
        expect(verifyText({ publicKey: key.publicKey, signature, text })).toBe(true);
        expect(verifyText({ publicKey: stranger.publicKey, signature, text })).toBe(false);
        if (other !== text)
          expect(verifyText({ publicKey: key.publicKey, signature, text: other })).toBe(false);
      }),
      { numRuns: 30 },
    );
  });

  test('nonsense for a key or a signature is a plain no', () => {
    for (const nonsense of ['', '!', 'AAAA', 'A'.repeat(43), 'A'.repeat(86), 'A'.repeat(1000)]) {
      const signature = signText(key, 'x');
      expect(verifyText({ publicKey: nonsense, signature, text: 'x' })).toBe(false);
      expect(verifyText({ publicKey: key.publicKey, signature: nonsense, text: 'x' })).toBe(false);
    }
  });

  test('a signing key survives its string', () => {
    expect(decodeSigningKey(encodeSigningKey(key))).toEqual(key);
  });
});

describe('signed documents', () => {
  const trusted = new Set([key.publicKey]);
  const bytesOf = (signed: z.infer<typeof signedSchema>) => encodeDocument(signedSchema, signed);

  test('a trusted one opens', () => {
    const signed = signPayload(key, JSON.stringify({ machines: ['a'] }));
    const opened = openSigned({ key: 'k', bytes: bytesOf(signed), schema, trusted });
    expect(opened.document).toEqual({ machines: ['a'] });
  });

  test('one by a stranger is refused, also when it is signed well', () => {
    const bytes = bytesOf(signPayload(stranger, '{"machines":[]}'));
    expect(() => openSigned({ key: 'k', bytes, schema, trusted })).toThrow(
      expect.objectContaining({ code: 'SignerNotTrusted' }),
    );
  });

  test('a payload that was changed, or put under another signer, is refused', () => {
    const signed = signPayload(key, '{"machines":["a"]}');
    const changed = { ...signed, payload: '{"machines":["b"]}' };
    expect(() => verifySigned({ key: 'k', signed: changed, trusted })).toThrow(
      expect.objectContaining({ code: 'SignatureInvalid' }),
    );
    const relabelled = { ...signPayload(stranger, signed.payload), signer: key.publicKey };
    expect(() => verifySigned({ key: 'k', signed: relabelled, trusted })).toThrow(
      expect.objectContaining({ code: 'SignatureInvalid' }),
    );
  });

  test('bytes that are no document are refused before anything is believed', () => {
    const hostile = [
      '',
      '{',
      'null',
      '[]',
      '{"payload":1}',
      '\ufffe',
      '{"payload":"","signer":"","signature":7}',
    ];
    for (const text of hostile)
      expect(() =>
        openSigned({ key: 'k', bytes: new TextEncoder().encode(text), schema, trusted }),
      ).toThrow(expect.objectContaining({ code: 'VaultDocumentInvalid' }));
    const wrongShape = bytesOf(signPayload(key, '{"machines":7}'));
    expect(() => openSigned({ key: 'k', bytes: wrongShape, schema, trusted })).toThrow(
      expect.objectContaining({ code: 'VaultDocumentInvalid' }),
    );
  });
});

describe('FreshnessGuard', () => {
  const document = (controllerEpoch: number, generation: number, payload = 'p') => ({
    key: 'k',
    controllerEpoch,
    generation,
    payload,
  });

  test('an older document is refused, also after a restart', async () => {
    let stored: AcceptedDocument | undefined;
    const persist = async (accepted: AcceptedDocument) => {
      stored = accepted;
    };
    const guard = new FreshnessGuard({ last: undefined, persist });
    expect(await guard.accept(document(1, 5))).toBe('newer');
    expect(await guard.accept(document(1, 5))).toBe('same');
    expect(await guard.accept(document(2, 1))).toBe('newer');
    const restarted = new FreshnessGuard({ last: stored, persist });
    await expect(restarted.accept(document(1, 9))).rejects.toMatchObject({ code: 'DocumentStale' });
    await expect(restarted.accept(document(2, 1, 'other'))).rejects.toMatchObject({
      code: 'DocumentForked',
    });
    expect(await restarted.accept(document(2, 1))).toBe('same');
  });

  test('nothing counts as accepted that was not stored', async () => {
    const guard = new FreshnessGuard({
      last: undefined,
      persist: () => Promise.reject(new Error('disk full')),
    });
    await expect(guard.accept(document(1, 1))).rejects.toThrow('disk full');
    expect(guard.last).toBeUndefined();
  });

  test('whatever comes in whatever order, what is accepted only goes up', async () => {
    const positions = fc.array(
      fc.tuple(fc.integer({ min: 1, max: 4 }), fc.integer({ min: 1, max: 4 })),
    );
    await fc.assert(
      fc.asyncProperty(positions, async (sequence) => {
        const accepted: number[] = [];
        const guard = new FreshnessGuard({
          last: undefined,
          persist: async (one) => {
            accepted.push(one.controllerEpoch * 10 + one.generation);
          },
        });
        for (const [epoch, generation] of sequence)
          await guard.accept(document(epoch, generation)).catch(() => {});
        expect(accepted).toEqual([...new Set(accepted)].sort((a, b) => a - b));
      }),
    );
  });
});
