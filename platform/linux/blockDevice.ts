import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { BlockDeviceError } from '../deviceErrors.ts';
import { errorCode, errorMessage } from '../errors.ts';
import type { BlockDevice, BlockDeviceIdentity, BlockDevices } from '../ports.ts';
import { RAW_DATA_START, rawOwnerOf } from './rawData.ts';
import { SECTOR_SIZE, sysfs } from './sysfs.ts';
import { whyUnprotectable } from './unprotectable.ts';

const WASM_PAGE = 65536;
/** Its memory is page-aligned, as direct I/O wants it. The type comes with the DOM's, which we don't have. */
declare const WebAssembly: { Memory: new (size: { initial: number }) => { buffer: ArrayBuffer } };

/** Whole, request-based disks of this machine (design §5). */
export const linuxBlockDevices: BlockDevices = {
  async open(path) {
    const name = sysfs.kernelNameOf(path);
    const problem = whyUnprotectable(sysfs, { path, name });
    if (problem !== undefined)
      throw new BlockDeviceError('DiskUnsupported', path, `Can't protect this disk: ${problem}.`);
    const handle = await open(path, constants.O_RDONLY | constants.O_DIRECT);
    const device = new LinuxBlockDevice(path, name, handle);
    try {
      await refuseRawData(device, name);
    } catch (error) {
      await handle.close();
      throw error;
    }
    return device;
  },
};

/** Rejects when the disk or one of its partitions is used without a filesystem that could be frozen. */
async function refuseRawData(device: BlockDevice, name: string): Promise<void> {
  const bytes = device.alignedBuffer(RAW_DATA_START);
  const whole = { name, offset: 0, length: Number.POSITIVE_INFINITY };
  for (const part of [whole, ...sysfs.partitionsOf(name)]) {
    const start = bytes.subarray(0, Math.min(RAW_DATA_START, part.length));
    const read = await device.read(start, part.offset);
    const owner = rawOwnerOf(start.subarray(0, read));
    if (owner === undefined) continue;
    const where = part === whole ? 'it' : `its partition ${part.name}`;
    throw new BlockDeviceError(
      'DiskUnsupported',
      device.path,
      `Can't protect ${device.path}: ${where} holds data of ${owner}, which no filesystem freezes for a recovery point. Leave the disk out, and protect that data by its own means.`,
    );
  }
}

class LinuxBlockDevice implements BlockDevice {
  readonly path: string;
  readonly multiRangeDiscards: boolean;
  readonly #name: string;
  readonly #handle: FileHandle;

  constructor(path: string, name: string, handle: FileHandle) {
    this.path = path;
    this.#name = name;
    this.#handle = handle;
    this.multiRangeDiscards = Number(sysfs.attribute(name, 'queue/max_discard_segments') ?? 1) > 1;
  }

  async identity(): Promise<BlockDeviceIdentity> {
    const number = sysfs.devT(this.#name);
    const sectors = sysfs.attribute(this.#name, 'size');
    if (number === undefined || sectors === undefined) throw this.#vanished();
    return {
      devT: number,
      // Kernels before 5.15 don't count media; size and number then stand alone.
      diskSequence: BigInt(sysfs.attribute(this.#name, 'diskseq') ?? 0),
      sizeBytes: Number(sectors) * SECTOR_SIZE,
    };
  }

  async read(into: Uint8Array, offset: number): Promise<number> {
    let done = 0;
    while (done < into.length) {
      let bytesRead: number;
      try {
        ({ bytesRead } = await this.#handle.read(into, done, into.length - done, offset + done));
      } catch (cause) {
        if (['ENODEV', 'ENXIO'].includes(errorCode(cause))) throw this.#vanished(cause);
        if (sysfs.devT(this.#name) === undefined) throw this.#vanished(cause);
        throw new BlockDeviceError(
          'DiskReadFailed',
          this.path,
          `${this.path} can't be read at byte ${offset + done}: ${errorMessage(cause)}. Look at the kernel log; what was sent of it before stays recoverable.`,
          { cause },
        );
      }
      if (bytesRead === 0) break;
      done += bytesRead;
    }
    return done;
  }

  alignedBuffer(size: number): Uint8Array {
    const memory = new WebAssembly.Memory({ initial: Math.ceil(size / WASM_PAGE) });
    return new Uint8Array(memory.buffer, 0, size);
  }

  async writtenSectors(): Promise<{ written: number; discarded: number }> {
    const fields = numbersOf(sysfs.attribute(this.#name, 'stat'));
    const [, , , , , , written, , , , , , , discarded] = fields;
    if (written === undefined) throw this.#vanished();
    return { written, discarded: discarded ?? 0 };
  }

  async writesInFlight(): Promise<number> {
    const [, writes] = numbersOf(sysfs.attribute(this.#name, 'inflight'));
    if (writes === undefined) throw this.#vanished();
    return writes;
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }

  #vanished(cause?: unknown): BlockDeviceError {
    return new BlockDeviceError(
      'DiskVanished',
      this.path,
      `${this.path} vanished: it was unplugged or detached. Attach it again, or take it off the ProtectedVM's disks; what was sent of it before stays recoverable.`,
      { cause },
    );
  }
}

function numbersOf(line: string | undefined): number[] {
  return (line ?? '').trim().split(/\s+/).map(Number);
}
