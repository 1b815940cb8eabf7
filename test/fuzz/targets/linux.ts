import { readFileSync } from 'node:fs';
import path from 'node:path';
import { TracingError } from '../../../platform/deviceErrors.ts';
import { parseMountInfo } from '../../../platform/linux/mounts.ts';
import {
  droppedEvents,
  EventKind,
  parseEventFormat,
  parsePage,
  parsePageLayout,
} from '../../../platform/linux/ringBuffer.ts';
import { parseFileExtents, parseSwaps } from '../../../platform/linux/swap.ts';
import { expectOwn, type FuzzTarget } from '../target.ts';

const fixtures = path.resolve(import.meta.dirname, '../../fixtures/trace');
const bytesOf = (name: string) => new Uint8Array(readFileSync(path.join(fixtures, name)));
const textOf = (bytes: Uint8Array) => Buffer.from(bytes).toString('utf8');
const layout = parsePageLayout(textOf(bytesOf('header_page')));
const format = parseEventFormat(textOf(bytesOf('block_rq_complete.format')));

/** A page of the kernel's ring buffer. */
export const tracePage: FuzzTarget = {
  name: 'trace-page',
  samples: () => [bytesOf('page.bin').slice(0, 640)],
  run: (bytes) => {
    let events = 0;
    try {
      parsePage(bytes, {
        layout,
        formats: [format],
        sink: ({ sector, sectorCount, kind }) => {
          events += 1;
          if (
            !(sector >= 0) ||
            !(sectorCount >= 0) ||
            !Object.values<number>(EventKind).includes(kind)
          )
            throw new Error(`an event of kind ${kind} at ${sector}, ${sectorCount}`);
        },
      });
    } catch (error) {
      expectOwn(error, TracingError, /./);
    }
    if (events * 4 > bytes.length) throw new Error(`${events} events in ${bytes.length} bytes`);
  },
};

/** The kernel's descriptions of its pages and events, and its other text files. */
export const kernelText: FuzzTarget = {
  name: 'kernel-text',
  samples: () => [
    bytesOf('block_rq_complete.format'),
    bytesOf('header_page'),
    Buffer.from('entries: 5\noverrun: 3\ncommit overrun: 2\ndropped events: 1\n'),
    Buffer.from('36 35 98:0 /mnt1 /mnt\\040two rw,noatime master:1 shared:7 - ext3 /dev/root ro\n'),
    Buffer.from('Filename\tType\tSize\tUsed\tPriority\n/dev/sda5 partition\t1048572\t0\t-2\n'),
    Buffer.from(' ext: x\n   0:        0..    1023:      34816..     35839:   1024:\n'),
  ],
  run: (bytes) => {
    const text = textOf(bytes);
    for (const parse of [parsePageLayout, parseEventFormat])
      try {
        const parsed = parse(text);
        for (const [field, value] of Object.entries(parsed) as [string, number][])
          if (!Number.isInteger(value) || value < 0 || value > 65536)
            throw new Error(`${field} is ${value}`);
      } catch (error) {
        expectOwn(error, TracingError, /./);
      }
    droppedEvents(text);
    parseMountInfo(text);
    parseSwaps(text);
    parseFileExtents(text);
  },
};
