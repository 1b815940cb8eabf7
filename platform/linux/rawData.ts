/**
 * Data that programs keep on devices without a filesystem of the kernel's. Nothing can freeze it, so no recovery point of it would be
 * one of a single moment.
 */

/** Of a disk or a partition, what has to be looked at. */
export const RAW_DATA_START = 256 << 10;
/** Where libblkid looks, too: the header of an Oracle ASM disk, and the uberblocks of a ZFS pool's first label. */
const ASM = { magic: Buffer.from('ORCLDISK'), offset: 32 };
const ZFS = { magic: 0x00bab10c, offset: 128 << 10, each: 1 << 10 };
/** As libblkid has it: fewer may be left of a pool that was destroyed. */
const UBERBLOCKS_MIN = 4;

/** Whose data a disk or partition holds that begins with these bytes; undefined when nobody's that is known. */
export function rawOwnerOf(start: Uint8Array): 'Oracle ASM' | 'ZFS' | undefined {
  const bytes = Buffer.from(start.buffer, start.byteOffset, start.length);
  const { magic, offset } = ASM;
  if (bytes.subarray(offset, offset + magic.length).equals(magic)) return 'Oracle ASM';
  let uberblocks = 0;
  for (let at = ZFS.offset; at + 8 <= bytes.length; at += ZFS.each) {
    // As the machine wrote it that made the pool.
    const little = bytes.readBigUInt64LE(at);
    const big = bytes.readBigUInt64BE(at);
    if (little === BigInt(ZFS.magic) || big === BigInt(ZFS.magic)) uberblocks += 1;
  }
  return uberblocks >= UBERBLOCKS_MIN ? 'ZFS' : undefined;
}
