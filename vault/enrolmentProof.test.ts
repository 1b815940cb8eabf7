import { expect, test } from 'vitest';
import {
  agentRequestMac,
  answerMac,
  passphraseKey,
  sameMac,
  tokenKey,
  tokenRequestMac,
} from './enrolmentProof.ts';

const nonce = 'ab'.repeat(32);
const csrDer = new Uint8Array([1, 2, 3]);
const key = passphraseKey({ passphrase: 'correct horse', nonce });

test('only the same passphrase with the same nonce proves anything', () => {
  const mac = agentRequestMac({ key, csrDer, name: 'db-1' });
  const again = passphraseKey({ passphrase: 'correct horse', nonce });
  expect(sameMac(agentRequestMac({ key: again, csrDer, name: 'db-1' }), mac)).toBe(true);
  for (const other of [
    passphraseKey({ passphrase: 'correct horsf', nonce }),
    passphraseKey({ passphrase: 'correct horse', nonce: 'ac'.repeat(32) }),
  ])
    expect(sameMac(agentRequestMac({ key: other, csrDer, name: 'db-1' }), mac)).toBe(false);
});

test('a passphrase counts however its accents are typed', () => {
  expect(passphraseKey({ passphrase: 'caf\u00e9', nonce })).toEqual(
    passphraseKey({ passphrase: 'cafe\u0301', nonce }),
  );
});

test('each field counts, and bytes can not move from one to the next', () => {
  const macs = [
    agentRequestMac({ key, csrDer, name: 'ab' }),
    agentRequestMac({ key, csrDer: new Uint8Array([1, 2, 3, 97]), name: 'b' }),
    agentRequestMac({ key, csrDer, name: 'a' }),
    tokenRequestMac({ key, csrDer, name: 'ab', encryptionKey: '' }),
    tokenRequestMac({ key, csrDer, name: 'a', encryptionKey: 'b' }),
    answerMac({ key, certificatePem: 'c', caCertificatePem: 'd' }),
    answerMac({ key, certificatePem: 'cd', caCertificatePem: '' }),
    answerMac({ key, certificatePem: 'c', caCertificatePem: 'd', machineId: 'm' }),
  ];
  expect(new Set(macs).size).toBe(macs.length);
});

test('the values of a known passphrase and token stay what they are', () => {
  expect({
    request: agentRequestMac({ key, csrDer, name: 'db-1' }),
    token: tokenRequestMac({ key: tokenKey('one-time'), csrDer, name: 'ps', encryptionKey: 'x' }),
    answer: answerMac({ key, certificatePem: 'c', caCertificatePem: 'ca', machineId: 'm' }),
  }).toMatchInlineSnapshot(`
    {
      "answer": "f5f33bcb49b898e5ea8af8d5053e44184b3e05720f28dfe6a00f511eda92c611",
      "request": "d85224b114cd54326b19130c76d979714a61a7556f532f2ddc384396ba28ef55",
      "token": "988eac5f7f32c28ff38b8c9a01b9b67a924344ba682f0d37322c2fc44f2da0ee",
    }
  `);
});

test('what is no MAC never matches, not even itself', () => {
  for (const nonsense of ['', 'zz', 'ab', 'ab'.repeat(31), 'ab'.repeat(33)])
    expect(sameMac(nonsense, nonsense)).toBe(false);
});

test('a nonce of another length is refused', () => {
  expect(() => passphraseKey({ passphrase: 'x', nonce: 'abcd' })).toThrow(RangeError);
});
