/**
 * A machine's local state on the cache disk: `machines/<machineId>/state.json`, replaced durably. What it says plus a replay of the log
 * after it is what was true when the process died.
 *
 *   JSON (machineStateSchema) | "\n" | CRC-32 of the JSON, 8 hex digits | "\n"
 *
 * Without the checksum a flipped bit could make another digest or position of it, and what is written then never joins the journal.
 */
import { crc32 } from 'node:zlib';
import { z } from 'zod';
import { replaceFile } from '../../platform/durableFile.ts';
import { errorCode, FarshoreError } from '../../platform/errors.ts';
import type { Disk } from '../../platform/ports.ts';
import { decimalText, dnsLabel, lsnText, machineIdSchema } from '../../vault/documents/fields.ts';
import { resyncReasonSchema } from '../../vault/documents/machineStatus.ts';

export const MACHINES_DIRECTORY = 'machines';
const STATE_VERSION = 1;
const STATE_SIZE_MAX = 1 << 20;
/** The checksum's digits and the newlines around them. */
const CHECKSUM_SIZE = 10;

const barrier = z.object({
  lsn: lsnText,
  timeMs: z.number().int().nonnegative(),
  consistency: z.enum(['Crash', 'App']),
});

export const machineStateSchema = z.object({
  version: z.literal(STATE_VERSION),
  machineId: machineIdSchema,
  /** Log entries of another incarnation are not this journal's. */
  incarnation: decimalText,
  /** Log files with lower numbers hold nothing of this incarnation. */
  sinceFile: z.number().int().nonnegative(),
  writerEpoch: z.number().int().positive(),
  /** Claimed, and the tables are being made from the vault: nothing here counts until it is Ready. */
  phase: z.enum(['Rebuilding', 'Ready']),
  /** Why local data can't be believed any more; the next open begins again from the vault, with a resync. */
  distrusted: z.string().optional(),
  uploaded: z.object({
    seq: z.number().int().min(-1),
    digest: z.string().regex(/^[0-9a-f]{64}$/),
    lsn: lsnText,
    barrier: barrier.optional(),
    appBarrier: barrier.optional(),
  }),
  /** As of this LSN the leaf tables are synced; replay begins after it. */
  table: z.object({
    lsn: lsnText,
    resync: z.union([
      z.object({ required: z.literal(false) }),
      z.object({
        required: z.literal(true),
        reason: resyncReasonSchema,
        /** Of the ResyncBegin that the journal is inside of; absent when one must still come. */
        beginLsn: lsnText.optional(),
      }),
    ]),
    lastBarrier: barrier.optional(),
  }),
  disks: z
    .array(
      z.object({
        index: z.number().int().min(0).max(63),
        name: dnsLabel,
        sizeBytes: z.number().int().nonnegative(),
      }),
    )
    .max(64),
});
export type MachineState = z.infer<typeof machineStateSchema>;
export type ResyncState = MachineState['table']['resync'];

export function machineDirectory(machineId: string): string {
  return `${MACHINES_DIRECTORY}/${machineId}`;
}

function statePath(machineId: string): string {
  return `${machineDirectory(machineId)}/state.json`;
}

/** `unreadable` when there is something that is no state; it is as good as none, but worth a log line. Rejects as the disk does. */
export async function readMachineState(
  disk: Disk,
  machineId: string,
): Promise<MachineState | 'missing' | 'unreadable'> {
  let bytes: Uint8Array;
  try {
    bytes = await readSmallFile(disk, statePath(machineId));
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return 'missing';
    if (errorCode(error) === 'CacheUnreadable') return 'unreadable';
    throw error;
  }
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
    const json = text.slice(0, -CHECKSUM_SIZE);
    if (text !== withChecksum(json)) return 'unreadable';
    const state = machineStateSchema.parse(JSON.parse(json));
    return state.machineId === machineId ? state : 'unreadable';
  } catch {
    return 'unreadable';
  }
}

/** The disk, or the filesystem's own checksum, says that these bytes can't be read: for a moment, or for good. */
export function isLost(error: unknown): boolean {
  return ['EIO', 'EBADMSG', 'EUCLEAN'].includes(errorCode(error));
}

/** Durable when it resolves; a crash leaves the old one or the new one. Calls for one machine must not overlap. */
export async function writeMachineState(disk: Disk, state: MachineState): Promise<void> {
  const text = JSON.stringify(z.encode(machineStateSchema, state));
  const bytes = new TextEncoder().encode(withChecksum(text));
  await replaceFile(disk, statePath(state.machineId), bytes);
}

/** A machine's state, in memory and on disk. */
export class StoredState {
  readonly #disk: Disk;
  #state: MachineState;
  #writes: Promise<void> = Promise.resolve();

  constructor(disk: Disk, state: MachineState) {
    this.#disk = disk;
    this.#state = state;
  }

  get state(): MachineState {
    return this.#state;
  }

  /** In order; takes effect in memory once durable. */
  change(changes: Partial<MachineState>): Promise<void> {
    const written = this.#writes.then(async () => {
      const state = { ...this.#state, ...changes };
      await writeMachineState(this.#disk, state);
      this.#state = state;
    });
    this.#writes = written.catch(() => {});
    return written;
  }

  /** Resolves when no write is under way; never rejects. */
  settled(): Promise<void> {
    return this.#writes;
  }
}

function withChecksum(json: string): string {
  return `${json}\n${crc32(json).toString(16).padStart(8, '0')}\n`;
}

/** Throws FarshoreError (CacheUnreadable) for a file that is too long to be ours. */
export async function readSmallFile(disk: Disk, path: string): Promise<Uint8Array> {
  const handle = await disk.open(path, 'read');
  try {
    const size = await handle.size();
    if (size > STATE_SIZE_MAX)
      throw new FarshoreError('CacheUnreadable', `Cache file ${path} is ${size} bytes long.`);
    const bytes = new Uint8Array(size);
    return bytes.subarray(0, await handle.read(bytes, 0));
  } finally {
    await handle.close();
  }
}
