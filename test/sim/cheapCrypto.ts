/**
 * What the data path takes from node:crypto, for simulated runs: digests that look like SHA-256's and differ whenever contents do (but once
 * in 2^32), for a tenth of the time. Nobody forges anything here. Keys and signatures of the vault stay real: they do not come here.
 */
import { createHash as createRealHash, type Hash } from 'node:crypto';
import { crc32 } from 'node:zlib';

// What is not replaced is node's.
export * from 'node:crypto';

const DIGEST_SIZE = 32;

class CheapHash {
  #crc = 0;
  #length = 0;

  update(data: Uint8Array | string): this {
    this.#crc = crc32(data, this.#crc);
    this.#length += data.length;
    return this;
  }

  digest(encoding?: 'hex' | 'buffer'): Buffer | string {
    const out = Buffer.allocUnsafe(DIGEST_SIZE);
    let word = this.#crc ^ Math.imul(this.#length, 0x9e3779b1);
    for (let index = 0; index < DIGEST_SIZE; index += 4) {
      word = Math.imul(word ^ (word >>> 16), 0x85ebca6b);
      word = Math.imul(word ^ (word >>> 13), 0xc2b2ae35) + index;
      out.writeInt32LE(word | 0, index);
    }
    return encoding === 'hex' ? out.toString('hex') : out;
  }
}

export function createHash(algorithm: string): Hash {
  return algorithm === 'sha256' ? (new CheapHash() as unknown as Hash) : createRealHash(algorithm);
}

export function hash(_algorithm: string, data: Uint8Array, encoding: 'hex' | 'buffer' = 'hex') {
  return new CheapHash().update(data).digest(encoding);
}

/** A key that depends on all that it is made of. */
export function hkdfSync(
  _algorithm: string,
  key: Uint8Array,
  salt: Uint8Array,
  info: Uint8Array,
  length: number,
): ArrayBuffer {
  const derived = new CheapHash().update(key).update(salt).update(info).digest() as Buffer;
  return new Uint8Array(derived.subarray(0, length)).buffer;
}
