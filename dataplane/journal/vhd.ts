/**
 * Fixed VHD (Virtual Hard Disk Image Format Specification, 2006): the disk's bytes, then a 512-byte footer.
 *
 * A source disk that is no whole number of MiB is padded with zeros to one, because Azure imports nothing else. Footer, big-endian:
 *
 *   offset size
 *   0      8    "conectix"
 *   8      4    features: 2 (reserved, always set)
 *   12     4    format version 1.0
 *   16     8    data offset: all ones (fixed disks have no dynamic header)
 *   24     4    seconds since 2000-01-01: 0, so that a footer depends on nothing but its disk
 *   28     4    creator application: "qem2"
 *   32     4    creator version
 *   36     4    creator host: "Wi2k"
 *   40     8    original size
 *   48     8    current size
 *   56     4    geometry: u16 cylinders, u8 heads, u8 sectors a track
 *   60     4    disk type: 2 (fixed)
 *   64     4    checksum: one's complement of the sum of all bytes but these
 *   68     16   unique id
 *   84     428  0
 *
 * The creator application matters: QEMU derives the size from the geometry, which rounds, unless the creator is one that is known to
 * mean the current size. "qem2" is what `qemu-img convert -O vpc -o subformat=fixed,force_size` writes, the way that Azure documents.
 * QEMU opens no VHD above 2040 GiB; Azure does.
 */
import { createHash } from 'node:crypto';

export const VHD_FOOTER_SIZE = 512;
const MIB = 1 << 20;
const SECTOR_SIZE = 512;
const GEOMETRY_MAX_SECTORS = 65535 * 16 * 255;

/** Bytes of a disk's body in its VHD: its size rounded up to whole MiB. */
export function vhdBodySize(diskSizeBytes: number): number {
  return Math.ceil(diskSizeBytes / MIB) * MIB;
}

/** Bytes of the whole VHD. */
export function vhdSize(diskSizeBytes: number): number {
  return vhdBodySize(diskSizeBytes) + VHD_FOOTER_SIZE;
}

/** The footer of a disk's VHD. `uniqueId` is 16 bytes. */
export function encodeVhdFooter(options: { bodySize: number; uniqueId: Uint8Array }): Uint8Array {
  const { bodySize, uniqueId } = options;
  if (bodySize <= 0 || bodySize % MIB !== 0)
    throw new RangeError(`a VHD body of ${bodySize} bytes`);
  const footer = new Uint8Array(VHD_FOOTER_SIZE);
  const view = new DataView(footer.buffer);
  const text = new TextEncoder();
  footer.set(text.encode('conectix'), 0);
  view.setUint32(8, 2);
  view.setUint32(12, 0x00010000);
  view.setBigUint64(16, 0xffffffffffffffffn);
  footer.set(text.encode('qem2'), 28);
  view.setUint32(32, 0x00050003);
  footer.set(text.encode('Wi2k'), 36);
  view.setBigUint64(40, BigInt(bodySize));
  view.setBigUint64(48, BigInt(bodySize));
  const geometry = vhdGeometry(bodySize);
  view.setUint16(56, geometry.cylinders);
  view.setUint8(58, geometry.heads);
  view.setUint8(59, geometry.sectors);
  view.setUint32(60, 2);
  footer.set(uniqueId.subarray(0, 16), 68);
  view.setUint32(64, checksum(footer));
  return footer;
}

/** The body size that a fixed VHD's footer states; undefined when the bytes are no such footer. */
export function decodeVhdFooter(footer: Uint8Array): { bodySize: number } | undefined {
  if (footer.length !== VHD_FOOTER_SIZE) return undefined;
  const view = new DataView(footer.buffer, footer.byteOffset, footer.byteLength);
  if (new TextDecoder('latin1').decode(footer.subarray(0, 8)) !== 'conectix') return undefined;
  if (view.getUint32(60) !== 2 || view.getUint32(64) !== checksum(footer)) return undefined;
  const bodySize = view.getBigUint64(48);
  return bodySize <= BigInt(Number.MAX_SAFE_INTEGER) ? { bodySize: Number(bodySize) } : undefined;
}

/** The same disk always has the same id, whoever writes its footer. */
export function vhdUniqueId(disk: { machineId: string; index: number }): Uint8Array {
  return createHash('sha256')
    .update(`farshore-vhd-v1|${disk.machineId}|${disk.index}`)
    .digest()
    .subarray(0, 16);
}

/** Cylinders, heads and sectors as the specification's appendix computes them. */
function vhdGeometry(bodySize: number): { cylinders: number; heads: number; sectors: number } {
  const total = Math.min(bodySize / SECTOR_SIZE, GEOMETRY_MAX_SECTORS);
  if (total >= 65535 * 16 * 63)
    return { cylinders: Math.floor(total / 255 / 16), heads: 16, sectors: 255 };
  let sectors = 17;
  let cylinderTimesHeads = Math.floor(total / sectors);
  let heads = Math.max(4, Math.ceil(cylinderTimesHeads / 1024));
  if (cylinderTimesHeads >= heads * 1024 || heads > 16) {
    sectors = 31;
    heads = 16;
    cylinderTimesHeads = Math.floor(total / sectors);
  }
  if (cylinderTimesHeads >= heads * 1024) {
    sectors = 63;
    heads = 16;
    cylinderTimesHeads = Math.floor(total / sectors);
  }
  return { cylinders: Math.floor(cylinderTimesHeads / heads), heads, sectors };
}

function checksum(footer: Uint8Array): number {
  let sum = 0;
  for (const [index, byte] of footer.entries()) if (index < 64 || index >= 68) sum += byte;
  return ~sum >>> 0;
}
