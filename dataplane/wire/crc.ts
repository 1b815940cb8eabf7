/**
 * CRC-32 of the end of something whose beginning and whole are known, without going over the bytes again.
 *
 * A CRC is a remainder of polynomials over GF(2): crc(A|B) = crc(A) · x^(8·length of B) + crc(B). Bits are reflected, as in zlib, whose
 * `crc32_combine` this is, solved for the second part.
 */
const POLYNOMIAL = 0xedb88320;
const ONE = 0x80000000;

/** x^(2^k) mod the polynomial. */
const squares: number[] = [0x40000000];
for (let k = 1; k < 32; k += 1)
  squares.push(product(squares[k - 1] as number, squares[k - 1] as number));

/** CRC-32 of the last `tailLength` bytes, when `head` is that of all bytes before and `whole` that of all. About a microsecond. */
export function crc32OfTail(options: { whole: number; head: number; tailLength: number }): number {
  return (options.whole ^ product(shift(options.tailLength), options.head)) >>> 0;
}

/** x^(8·bytes) mod the polynomial. */
function shift(bytes: number): number {
  let power = ONE;
  for (let rest = bytes, k = 3; rest > 0; rest = Math.floor(rest / 2), k += 1)
    if (rest % 2 === 1) power = product(squares[k % 32] as number, power);
  return power;
}

function product(a: number, b: number): number {
  let sum = 0;
  let term = b;
  for (let bit = 31; bit >= 0; bit -= 1) {
    if (((a >>> bit) & 1) === 1) sum ^= term;
    term = (term & 1) === 1 ? (term >>> 1) ^ POLYNOMIAL : term >>> 1;
  }
  return sum >>> 0;
}
