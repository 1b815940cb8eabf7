import { crc32 } from 'node:zlib';
import {
  ENTRY_ALIGNMENT,
  ENTRY_HEADER_SIZE,
  encodeEntryHeader,
  encodeLogHeader,
  entrySize,
  LOG_HEADER_SIZE,
} from '../../../dataplane/journal/cacheEntry.ts';
import { LogDamage, logFileName, readEntries } from '../../../dataplane/journal/cacheLog.ts';
import { recoverLog } from '../../../dataplane/journal/cacheRecovery.ts';
import { LeafTable } from '../../../dataplane/journal/leafTable.ts';
import { JournalError } from '../../../dataplane/journal/machineJournal.ts';
import {
  machineDirectory,
  readMachineState,
  writeMachineState,
} from '../../../dataplane/journal/machineState.ts';
import { RootBuilder } from '../../../dataplane/journal/merkle.ts';
import { decodeVhdFooter, encodeVhdFooter, vhdUniqueId } from '../../../dataplane/journal/vhd.ts';
import { MemoryDisk } from '../../fakes/memoryDisk.ts';
import { silentLogger } from '../../fakes/silentLogger.ts';
import { expectOwn, expectSame, type FuzzTarget } from '../target.ts';

const cacheId = 'c0'.repeat(16);
const machineId = '0a'.repeat(16);

async function diskWith(files: Record<string, Uint8Array>): Promise<MemoryDisk> {
  const disk = new MemoryDisk();
  for (const [path, bytes] of Object.entries(files)) {
    const slash = path.lastIndexOf('/');
    if (slash > 0) await disk.makeDirectory(path.slice(0, slash));
    const file = await disk.open(path, 'create');
    await file.write(bytes, 0);
    await file.sync();
    await file.close();
  }
  return disk;
}

function logFile(payloads: readonly number[], durable: boolean): Uint8Array {
  const parts = [encodeLogHeader({ cacheId, number: 1, previousSize: 0 })];
  let end = LOG_HEADER_SIZE;
  for (const [i, payloadLength] of payloads.entries()) {
    const entry = new Uint8Array(entrySize(payloadLength));
    const payload = entry
      .subarray(ENTRY_HEADER_SIZE, ENTRY_HEADER_SIZE + payloadLength)
      .fill(i + 1);
    encodeEntryHeader(entry, 0, {
      ...{ machineId, incarnation: 1n, firstLsn: BigInt(i + 1), count: 1, payloadLength },
      ...{ payloadCrc: crc32(payload), durable: durable ? end : 0 },
    });
    parts.push(entry);
    end += entry.length;
  }
  return Buffer.concat(parts);
}

/** The last file of the cache's log after a crash. */
export const cacheLog: FuzzTarget = {
  name: 'cache-log',
  samples: () => [logFile([100, 64, 1], true), logFile([300, 5], false), logFile([], true)],
  run: async (bytes) => {
    const disk = await diskWith({ [logFileName(1)]: bytes });
    try {
      const first = await recoverLog(disk, { cacheId, logger: silentLogger });
      for (const run of first.runs)
        try {
          for await (const { header } of readEntries(disk, run.place, run))
            expectSame('an entry of another machine', header.machineId, run.machineId);
        } catch (error) {
          if (!(error instanceof LogDamage)) throw error;
        }
      const second = await recoverLog(disk, { cacheId, logger: silentLogger });
      expectSame('a second recovery finds other entries', second.runs, first.runs);
      expectSame('a second recovery finds other files', [...second.files], [...first.files]);
    } catch (error) {
      expectOwn(error, JournalError, /^CacheUnreadable$/);
    }
  },
  mend: (bytes) => {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    if (bytes.length < LOG_HEADER_SIZE) return;
    view.setUint32(48, crc32(bytes.subarray(0, 48)), true);
    for (let at = LOG_HEADER_SIZE; at + ENTRY_HEADER_SIZE <= bytes.length; at += ENTRY_ALIGNMENT) {
      if (Buffer.compare(bytes.subarray(at, at + 4), Buffer.from('FLE1')) !== 0) continue;
      const payload = bytes.subarray(
        at + ENTRY_HEADER_SIZE,
        at + ENTRY_HEADER_SIZE + view.getUint32(at + 12, true),
      );
      view.setUint32(at + 8, crc32(payload), true);
      view.setUint32(at + 4, crc32(bytes.subarray(at + 8, at + ENTRY_HEADER_SIZE)), true);
    }
  },
};

const stateFile = `${machineDirectory(machineId)}/state.json`;

/** A machine's state on the cache disk. */
export const machineState: FuzzTarget = {
  name: 'machine-state',
  samples: () => {
    const barrier = { lsn: '90', timeMs: 5, consistency: 'App' };
    const json = JSON.stringify({
      ...{
        version: 1,
        machineId,
        incarnation: '12345',
        sinceFile: 1,
        writerEpoch: 2,
        phase: 'Ready',
      },
      uploaded: { seq: 7, digest: 'ab'.repeat(32), lsn: '90', barrier },
      table: { lsn: '91', resync: { required: true, reason: 'Manual', beginLsn: '91' } },
      disks: [{ index: 0, name: 'sda', sizeBytes: 1 << 20 }],
    });
    return [Buffer.from(`${json}\n${crc32(json).toString(16).padStart(8, '0')}\n`)];
  },
  run: async (bytes) => {
    const disk = await diskWith({ [stateFile]: bytes });
    const read = await readMachineState(disk, machineId);
    if (read === 'missing') throw new Error('a state that is there is missing');
    if (read === 'unreadable') return;
    await writeMachineState(disk, read);
    expectSame('a state changes', await readMachineState(disk, machineId), read);
  },
  mend: (bytes) => {
    if (bytes.length < 10) return;
    const crc = crc32(bytes.subarray(0, -10)).toString(16).padStart(8, '0');
    bytes.set(Buffer.from(`\n${crc}\n`), bytes.length - 10);
  },
};

/** The two files of a leaf table: the first half of the bytes, and the second. */
export const leafTable: FuzzTarget = {
  name: 'leaf-table',
  samples: () => [new Uint8Array(0), new Uint8Array(64).fill(3), new Uint8Array(9000).fill(255)],
  run: async (bytes) => {
    const half = bytes.length >> 1;
    const hashes = bytes.subarray(0, half);
    const disk = await diskWith({ 't.leaves': hashes, 't.unsettled': bytes.subarray(half) });
    const sizeBytes = 40 * 65536 + 512;
    const table = await LeafTable.open({ disk, path: 't', sizeBytes, fresh: false });
    const whole = new Uint8Array(48 * 32);
    whole.set(hashes.subarray(0, 41 * 32));
    const builder = new RootBuilder({ sizeBytes });
    expectSame('the table holds something else', await table.read(0, 48), whole);
    const root = await table.root();
    if (whole.every((byte) => byte === 0))
      expectSame('the root is another', root, builder.finish());
    await table.ask(0, whole.subarray(0, 41 * 32));
    table.settleAll();
    await table.sync();
    await table.close();
    const again = await LeafTable.open({ disk, path: 't', sizeBytes, fresh: false });
    expectSame('the root changes', await again.root(), root);
    await again.close();
  },
};

export const vhdFooter: FuzzTarget = {
  name: 'vhd-footer',
  samples: () => {
    const uniqueId = vhdUniqueId({ machineId, index: 0 });
    return [1, 4096, 4095 * 1024].map((mib) =>
      encodeVhdFooter({ bodySize: mib * 2 ** 20, uniqueId }),
    );
  },
  run: (bytes) => {
    const decoded = decodeVhdFooter(bytes);
    if (decoded === undefined) return;
    if (!Number.isSafeInteger(decoded.bodySize) || decoded.bodySize < 0)
      throw new Error(`a body of ${decoded.bodySize} bytes`);
  },
  mend: (bytes) => {
    if (bytes.length !== 512) return;
    let sum = 0;
    for (const [at, byte] of bytes.entries()) if (at < 64 || at >= 68) sum += byte;
    new DataView(bytes.buffer, bytes.byteOffset).setUint32(64, ~sum >>> 0);
  },
};
