import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { SeededRandom } from '../test/fakes/seededRandom.ts';
import { standsHostileBytes } from '../test/fuzz/hostile.ts';
import { sealedKey } from '../test/fuzz/targets/vault.ts';
import {
  boxContext,
  boxKeyFromSeed,
  createDataKey,
  decodePublicKey,
  decodeVaultKey,
  encodePublicKey,
  encodeVaultKey,
  generateBoxKey,
  openDataKey,
  openSealedKey,
  recipientId,
  sealForMissing,
  sealKey,
  sealKeyForAll,
} from './keys.ts';

const random = new SeededRandom(1);
const vaultId = '11'.repeat(16);
const machineId = '22'.repeat(16);
const seed = fc.uint8Array({ minLength: 32, maxLength: 32 });

test('a sealed key’s box of any bytes gives the secret that was sealed, or SealedKeyInvalid', async () => {
  await standsHostileBytes(sealedKey);
});

describe('sealed keys', () => {
  test('any secret opens with the right key and context, and with no other', () => {
    fc.assert(
      fc.property(
        seed,
        seed,
        fc.uint8Array({ maxLength: 300 }),
        fc.string(),
        (own, other, secret, context) => {
          const key = boxKeyFromSeed(own);
          const stranger = boxKeyFromSeed(other);
          const sealed = [
            sealKey({
              random,
              recipient: { kind: 'vault', publicKey: key.publicKey },
              secret,
              context,
            }),
          ];
          expect(openSealedKey({ sealed, key, context })).toEqual(secret);
          expect(() => openSealedKey({ sealed, key, context: `${context}x` })).toThrow(
            /does not open/,
          );
          if (stranger.id !== key.id)
            expect(() => openSealedKey({ sealed, key: stranger, context })).toThrow(
              /sealed for vault/,
            );
        },
      ),
      { numRuns: 40 },
    );
  });

  test('a box with any byte changed, cut or added does not open', () => {
    const key = generateBoxKey(random);
    const recipient = { kind: 'vault' as const, publicKey: key.publicKey };
    const box = sealKey({ random, recipient, secret: random.bytes(32), context: 'c' });
    const bytes = Buffer.from(box.box, 'base64url');
    const tries = [
      ...Array.from(bytes, (byte, index) => {
        const flipped = Buffer.from(bytes);
        // The top bit of an X25519 key is ignored by the curve, and still is part of what is authenticated.
        flipped[index] = byte ^ 0x80;
        return flipped;
      }),
      bytes.subarray(0, 47),
      bytes.subarray(0, -1),
      Buffer.concat([bytes, Buffer.alloc(1)]),
      Buffer.alloc(80),
      Buffer.alloc(0),
    ];
    for (const altered of tries)
      expect(() =>
        openSealedKey({
          sealed: [{ ...box, box: altered.toString('base64url') }],
          key,
          context: 'c',
        }),
      ).toThrow(expect.objectContaining({ code: 'SealedKeyInvalid' }));
  });

  test('a data key opens for each recipient, and for one machine of one vault alone', () => {
    const keys = [generateBoxKey(random), generateBoxKey(random), generateBoxKey(random)];
    const recipients = keys.map((key) => ({ kind: 'recovery' as const, publicKey: key.publicKey }));
    const { dataKey, sealed } = createDataKey({ random, vaultId, machineId, recipients });
    expect(dataKey).toHaveLength(32);
    for (const key of keys) {
      expect(openDataKey({ sealed, key, vaultId, machineId })).toEqual(dataKey);
      expect(() => openDataKey({ sealed, key, vaultId, machineId: vaultId })).toThrow();
      expect(() => openDataKey({ sealed, key, vaultId: machineId, machineId })).toThrow();
    }
  });

  test('a recipient named twice gets one box', () => {
    const { publicKey } = generateBoxKey(random);
    const recipients = [
      { kind: 'vault' as const, publicKey },
      { kind: 'recovery' as const, publicKey },
    ];
    expect(
      sealKeyForAll({ random, recipients, secret: new Uint8Array(1), context: '' }),
    ).toHaveLength(1);
  });

  test('sealing for those who miss it adds theirs and leaves the rest', () => {
    const [first, second] = [generateBoxKey(random), generateBoxKey(random)];
    const recipient = (key: typeof first) => ({
      kind: 'processserver' as const,
      publicKey: key.publicKey,
    });
    const { dataKey, sealed } = createDataKey({
      random,
      vaultId,
      machineId,
      recipients: [recipient(first)],
    });
    const context = boxContext.dataKey(vaultId, machineId);
    const more = sealForMissing({
      random,
      sealed,
      key: first,
      recipients: [recipient(first), recipient(second)],
      context,
    });
    expect(more.map((box) => box.recipient)).toEqual([first.id, second.id]);
    expect(more[0]).toBe(sealed[0]);
    expect(openDataKey({ sealed: more, key: second, vaultId, machineId })).toEqual(dataKey);
    expect(
      sealForMissing({
        random,
        sealed: more,
        key: first,
        recipients: [recipient(second)],
        context,
      }),
    ).toBe(more);
  });

  test('the layout of a box stays readable: a box made by an earlier build opens', () => {
    const key = boxKeyFromSeed(new Uint8Array(32).fill(7));
    const box = 'miJ7eE06cFjUFwn5vn2BLBGjwDSeNlur-WjBvMx8WVLHbNK4LojQNRmiU3LRNEWd3r9np-ud';
    expect(
      openSealedKey({
        sealed: [{ recipient: key.id, kind: 'vault', box }],
        key,
        context: 'golden',
      }),
    ).toEqual(new TextEncoder().encode('secret'));
  });
});

describe('keys as text', () => {
  test('public keys are exactly 32 bytes of base64url', () => {
    const { publicKey, id } = generateBoxKey(random);
    expect(decodePublicKey(encodePublicKey(publicKey))).toEqual(publicKey);
    expect(recipientId(publicKey)).toBe(id);
    for (const bad of [
      '',
      'AA',
      `${encodePublicKey(publicKey)}A`,
      encodePublicKey(publicKey).replace(/.$/, '='),
    ])
      expect(() => decodePublicKey(bad)).toThrow(expect.objectContaining({ code: 'KeyInvalid' }));
  });

  test('a vault key survives its string', () => {
    const key = generateBoxKey(random);
    expect(decodeVaultKey(encodeVaultKey(key))).toEqual(key);
  });
});
