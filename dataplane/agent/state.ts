/**
 * What an agent must remember of its tracking to go on after a restart. It lies in memory (/run): a reboot loses it, and should.
 *
 * `state` is replaced as a whole:
 *
 *   0   8   "FSAGENT1"
 *   8   4   CRC-32 of all that follows
 *   12  4   length of the JSON
 *   16  …   JSON (savedStateSchema), then the bitmaps of each disk in its order: dirty, sent, sentBefore
 *
 * `captured` is 8 bytes, the highest LSN ever given to a record, written before the record is sent.
 *
 * A state that is older than the agent's death is still sound: what was sent since is dirty in it and sent again, and a write that
 * was seen since, and is missing from it, is missing from its account of sectors too, which then does not balance (accounting.ts).
 */
import { crc32 } from 'node:zlib';
import { z } from 'zod';
import { errorCode, FarshoreError } from '../../platform/errors.ts';
import type { Disk } from '../../platform/ports.ts';
import { machineIdSchema } from '../../vault/documents/fields.ts';
import { resyncReasonSchema } from '../../vault/documents/machineStatus.ts';
import { configurationSchema } from '../wire/messages.ts';

const MAGIC = 'FSAGENT1';
const HEADER_SIZE = 16;
/** A swap file may lie in a hundred thousand pieces. */
const JSON_MAX = 16 << 20;
/** Three full bitmaps of 32 TiB. */
const STATE_MAX = 4 * 2 ** 30;
const STATE_FILE = 'state';
const CAPTURED_FILE = 'captured';

const decimal = z.codec(z.string().regex(/^(0|[1-9][0-9]{0,18})$/), z.bigint().nonnegative(), {
  decode: (text) => BigInt(text),
  encode: (value) => value.toString(),
});
const size = z.number().int().nonnegative();

const savedDiskSchema = z.object({
  index: z.number().int().min(0).max(63),
  device: z.string(),
  identity: z.object({ devT: size, diskSequence: decimal, sizeBytes: size }),
  account: z.object({
    traced: size,
    low: z.number().int().optional(),
    high: z.number().int().optional(),
  }),
  mark: decimal,
  /** Swap bodies, whose canonical content is zero. Absent from an older agent's state: none are known. */
  zeroed: z.array(z.object({ offset: size, length: size })).optional(),
  /** Where software RAIDs keep their own records: nobody thawed a held machine whose kernel writes there. Likewise. */
  raidRecords: z.array(z.object({ offset: size, length: size })).optional(),
  bitmapBytes: z.tuple([size, size, size]),
});

export const savedStateSchema = z.object({
  machineId: machineIdSchema,
  bootId: z.string(),
  cacheId: z.string().optional(),
  /** Under which that cache was served. Absent from an older agent's state. */
  writerEpoch: size.optional(),
  acknowledgedBarrierLsn: decimal,
  resyncToken: z.string().optional(),
  configuration: configurationSchema.optional(),
  /** A resync that was under way. */
  resync: z
    .object({
      reason: resyncReasonSchema,
      startedMs: size,
      beginLsn: decimal,
      bytesSent: size,
      cursors: z.array(z.tuple([size, size])),
    })
    .optional(),
  /** Where the scrub is (capture/scrub.ts). */
  scrub: z
    .object({
      startedMs: size,
      disk: size,
      leaf: size,
      leavesCompared: size,
      leavesPassedOver: size,
    })
    .optional(),
  /** A planned failover's last barrier is taken: these filesystems are frozen, and stay so. */
  held: z
    .object({
      failover: z.string(),
      poweredOff: z.boolean(),
      mountPoints: z.array(z.string()),
      /** Their watchdogs were about to be called off: they may be frozen, or thawed. */
      holding: z.boolean().optional(),
    })
    .optional(),
  /** Empty: tracking was lost, or had not begun. */
  disks: z.array(savedDiskSchema).max(64),
});
type SavedJson = z.output<typeof savedStateSchema>;
type SavedDiskJson = SavedJson['disks'][number];

export interface SavedDisk extends Omit<SavedDiskJson, 'bitmapBytes'> {
  dirty: Uint8Array;
  sent: Uint8Array;
  sentBefore: Uint8Array;
}

export interface SavedState extends Omit<SavedJson, 'disks'> {
  disks: SavedDisk[];
}

export class AgentStateStore {
  readonly #disk: Disk;
  #captured: Awaited<ReturnType<Disk['open']>> | undefined;
  #saving: Promise<void> = Promise.resolve();

  /** `disk`: a directory in memory, for this machine identity alone. */
  constructor(disk: Disk) {
    this.#disk = disk;
  }

  /** undefined when there is none, or it can't be used: then tracking is lost. */
  async load(): Promise<SavedState | undefined> {
    const bytes = await readWhole(this.#disk, STATE_FILE, STATE_MAX);
    if (bytes === undefined) return undefined;
    try {
      return decodeState(bytes);
    } catch {
      return undefined;
    }
  }

  /** As it is now. Calls may overlap: the last one's state stays. */
  async save(state: SavedState): Promise<void> {
    const bytes = encodeState(state);
    const saving = this.#saving.then(() => this.#replace(bytes));
    this.#saving = saving.catch(() => undefined);
    await saving;
  }

  async #replace(bytes: Uint8Array): Promise<void> {
    const temporary = `${STATE_FILE}.new`;
    await this.#disk.remove(temporary);
    const file = await this.#disk.open(temporary, 'createExclusive');
    try {
      await file.write(bytes, 0);
    } finally {
      await file.close();
    }
    await this.#disk.rename({ from: temporary, to: STATE_FILE });
  }

  async loadCaptured(): Promise<bigint> {
    const bytes = await readWhole(this.#disk, CAPTURED_FILE, 8);
    if (bytes?.length !== 8) return 0n;
    return new DataView(bytes.buffer, bytes.byteOffset, 8).getBigUint64(0, true);
  }

  /** No fsync: it has to outlive this process, not the machine. */
  async saveCaptured(lsn: bigint): Promise<void> {
    this.#captured ??= await this.#disk.open(CAPTURED_FILE, 'create');
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, lsn, true);
    await this.#captured.write(bytes, 0);
  }

  async close(): Promise<void> {
    await this.#captured?.close();
    this.#captured = undefined;
  }
}

export function encodeState(state: SavedState): Uint8Array {
  const bitmaps = state.disks.flatMap(({ dirty, sent, sentBefore }) => [dirty, sent, sentBefore]);
  const disks = state.disks.map(
    ({ dirty, sent, sentBefore, ...disk }): SavedDiskJson => ({
      ...disk,
      bitmapBytes: [dirty.length, sent.length, sentBefore.length],
    }),
  );
  const json = Buffer.from(JSON.stringify(z.encode(savedStateSchema, { ...state, disks })));
  const header = Buffer.alloc(HEADER_SIZE);
  header.write(MAGIC, 0, 'latin1');
  header.writeUInt32LE(json.length, 12);
  const whole = Buffer.concat([header, json, ...bitmaps]);
  whole.writeUInt32LE(crc32(whole.subarray(12)), 8);
  return whole;
}

/** Throws FarshoreError AgentStateInvalid. */
export function decodeState(bytes: Uint8Array): SavedState {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (buffer.length < HEADER_SIZE || buffer.toString('latin1', 0, 8) !== MAGIC)
    throw invalid('it is not an agent state');
  if (buffer.readUInt32LE(8) !== crc32(buffer.subarray(12))) throw invalid('its checksum is wrong');
  const jsonEnd = HEADER_SIZE + buffer.readUInt32LE(12);
  if (jsonEnd > buffer.length || jsonEnd > JSON_MAX) throw invalid('its lengths contradict');
  let json: unknown;
  try {
    json = JSON.parse(buffer.toString('utf8', HEADER_SIZE, jsonEnd));
  } catch (cause) {
    throw invalid('it holds no JSON', { cause });
  }
  const parsed = savedStateSchema.safeParse(json);
  if (!parsed.success) throw invalid(parsed.error.issues[0]?.message ?? 'its fields are wrong');
  let offset = jsonEnd;
  const take = (length: number): Uint8Array => {
    offset += length;
    if (offset > buffer.length) throw invalid('a bitmap is cut');
    return buffer.subarray(offset - length, offset);
  };
  const disks = parsed.data.disks.map(({ bitmapBytes, ...disk }): SavedDisk => {
    const [dirty, sent, sentBefore] = bitmapBytes;
    return { ...disk, dirty: take(dirty), sent: take(sent), sentBefore: take(sentBefore) };
  });
  return { ...parsed.data, disks };
}

function invalid(problem: string, options?: ErrorOptions): FarshoreError {
  return new FarshoreError(
    'AgentStateInvalid',
    `The saved state can't be used: ${problem}.`,
    options,
  );
}

async function readWhole(
  disk: Disk,
  path: string,
  maximum: number,
): Promise<Uint8Array | undefined> {
  let file: Awaited<ReturnType<Disk['open']>>;
  try {
    file = await disk.open(path, 'read');
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return undefined;
    throw error;
  }
  try {
    const length = await file.size();
    if (length > maximum) return undefined;
    const bytes = new Uint8Array(length);
    const read = await file.read(bytes, 0);
    return bytes.subarray(0, read);
  } finally {
    await file.close();
  }
}
