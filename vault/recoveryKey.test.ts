import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { SeededRandom } from '../test/fakes/seededRandom.ts';
import { standsHostileBytes } from '../test/fuzz/hostile.ts';
import { keyString } from '../test/fuzz/targets/vault.ts';
import { decodeKeyString, encodeKeyString } from './keyStrings.ts';
import { encodeVaultKey } from './keys.ts';
import { decodeRecoveryKey, decodeRecoveryRecipient, generateRecoveryKey } from './recoveryKey.ts';

const seed = fc.uint8Array({ minLength: 32, maxLength: 32 });

describe('key strings', () => {
  test('every key survives its string, also in upper case and with space around it', () => {
    fc.assert(
      fc.property(seed, (bytes) => {
        const text = encodeKeyString('recovery-private', bytes);
        expect(text).toMatch(/^farshore-recovery-private-[a-z2-7]+$/);
        expect(decodeKeyString('recovery-private', `  ${text.toUpperCase()}\n`)).toEqual(bytes);
      }),
    );
  });

  test('of every kind, changed anywhere, give the same key or KeyStringInvalid', async () => {
    await standsHostileBytes(keyString);
  });

  test('one wrong, lost or doubled character is refused', () => {
    const text = encodeKeyString('recovery-private', new SeededRandom(3).bytes(32));
    const start = 'farshore-recovery-private-'.length;
    for (let at = start; at < text.length; at += 1) {
      const wrong = text[at] === 'a' ? 'b' : 'a';
      for (const typo of [
        text.slice(0, at) + wrong + text.slice(at + 1),
        text.slice(0, at) + text.slice(at + 1),
        text.slice(0, at) + text[at] + text.slice(at),
      ])
        expect(() => decodeKeyString('recovery-private', typo)).toThrow(
          expect.objectContaining({ code: 'KeyStringInvalid' }),
        );
    }
  });

  test('arbitrary text is refused, and never repeated in the message', () => {
    fc.assert(
      fc.property(fc.string({ minLength: 12 }), (text) => {
        const whole = `farshore-recovery-private-${text}`;
        try {
          decodeKeyString('recovery-private', whole);
          expect.unreachable();
        } catch (error) {
          expect(error).toMatchObject({ code: 'KeyStringInvalid' });
          expect((error as Error).message).not.toContain(text);
        }
      }),
    );
  });
});

describe('recovery keys', () => {
  test('both key pairs follow from the private string', () => {
    const key = generateRecoveryKey(new SeededRandom(5));
    const again = decodeRecoveryKey(key.privateString);
    expect(again).toEqual(key);
    const recipient = decodeRecoveryRecipient(key.publicString);
    expect(recipient).toEqual({
      id: key.box.id,
      recipient: { kind: 'recovery', publicKey: key.box.publicKey },
      signingPublicKey: key.signing.publicKey,
    });
  });

  test('the strings of a known seed stay what they are', () => {
    const key = decodeRecoveryKey(encodeKeyString('recovery-private', new Uint8Array(32).fill(1)));
    expect({ public: key.publicString, private: key.privateString }).toMatchInlineSnapshot(`
      {
        "private": "farshore-recovery-private-aeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcfqavyma",
        "public": "farshore-recovery-public-aemcx7pu6rw742j65yzaajviivyxvuyp4ds3hbuxpuc333r2ryuve74bfwexhsbqouhoufiycr43r3mzpmdwj2w7kbm4stac2whdseqta4pemey",
      }
    `);
  });

  test('a private key given as a public one is called what it is', () => {
    const key = generateRecoveryKey(new SeededRandom(6));
    expect(() => decodeRecoveryRecipient(key.privateString)).toThrow(/PRIVATE/);
    expect(() => decodeRecoveryRecipient(encodeVaultKey(key.box))).toThrow(/vault key/);
    expect(() => decodeRecoveryKey(key.publicString)).toThrow(/public string/);
  });
});
