import { readFileSync } from 'node:fs';
import path from 'node:path';
import { decodeRecord, RecordError } from '../../../dataplane/journal/record.ts';
import {
  decodeSegmentHeader,
  encodeSegmentHeader,
  SEGMENT_FIXED_HEADER,
  SegmentError,
  segmentAad,
  segmentKey,
} from '../../../dataplane/journal/segment.ts';
import { inlineCodec, sealChunk } from '../../../dataplane/journal/segmentCodec.ts';
import { SegmentReader } from '../../../dataplane/journal/segmentReader.ts';
import { goldenSegments } from '../../golden/segment/samples.ts';
import { expectOwn, expectSame, type FuzzTarget } from '../target.ts';

const OWN = /^Segment(Damaged|KeyRefused|FormatTooNew)$/;
const name = 'journal/m/000000000001.seg';
const folder = path.resolve(import.meta.dirname, '../../golden/segment/v1');
const dataKey = Uint8Array.from({ length: 32 }, (_, i) => i);

/** A segment's header alone. */
export const segmentHeader: FuzzTarget = {
  name: 'segment-header',
  samples: () => goldenSegments.map(({ header }) => encodeSegmentHeader(header)),
  run: (bytes) => {
    try {
      const header = decodeSegmentHeader(bytes, name);
      expectSame(
        'a header changes',
        decodeSegmentHeader(encodeSegmentHeader(header), name),
        header,
      );
    } catch (error) {
      expectOwn(error, SegmentError, OWN);
    }
  },
};

/** Whole segments as the vault gives them. */
export const segment: FuzzTarget = {
  name: 'segment',
  samples: () =>
    goldenSegments
      .map((golden) => new Uint8Array(readFileSync(path.join(folder, `${golden.name}.seg`))))
      .filter(({ length }) => length < 4096),
  run: readAll,
};

/**
 * A header, and the plain bytes that a writer who has the key seals under it, in one chunk: what only a writer of ours could send, and
 * nobody believes all the same.
 */
export const sealedSegment: FuzzTarget = {
  name: 'sealed-segment',
  samples: () =>
    goldenSegments.map(({ header, records }) => {
      const plain = records.subarray(0, 20);
      const one = { ...header, plainLength: plain.length, chunkSize: 1 << 20 };
      if (header.kind !== 'Data') return encodeSegmentHeader(header);
      const whole = { ...one, lastLsn: header.firstLsn, barriers: [] };
      return Buffer.concat([encodeSegmentHeader(whole), plain]);
    }),
  run: async (bytes) => {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    if (bytes.length < SEGMENT_FIXED_HEADER) return await readAll(bytes);
    const length = Math.min(view.getUint32(12, true), bytes.length);
    const headerBytes = bytes.slice(0, length);
    let key: Uint8Array;
    try {
      key = segmentKey(dataKey, decodeSegmentHeader(headerBytes, name));
    } catch (error) {
      return expectOwn(error, SegmentError, OWN);
    }
    const sealed = sealChunk(
      { key, aad: segmentAad(headerBytes), index: 0, last: true },
      bytes.slice(length),
    );
    const prefix = new Uint8Array(4);
    new DataView(prefix.buffer).setUint32(0, sealed.length, true);
    await readAll(Buffer.concat([headerBytes, prefix, sealed]));
  },
};

async function readAll(bytes: Uint8Array): Promise<void> {
  try {
    const reader = await SegmentReader.open(inPieces(bytes), name);
    for await (const { records, count } of reader.batches({ dataKey, codec: inlineCodec })) {
      let read = 0;
      for (let offset = 0; offset < records.length; read++)
        offset = decodeRecord(records, offset).next;
      expectSame('a batch has another count', read, count);
    }
    await reader.digest();
  } catch (error) {
    // Who reads the records looks at them himself.
    if (error instanceof RecordError) expectOwn(error, RecordError, /^RecordInvalid$/);
    else expectOwn(error, SegmentError, OWN);
  }
}

async function* inPieces(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += 1000) yield bytes.subarray(at, at + 1000);
}
