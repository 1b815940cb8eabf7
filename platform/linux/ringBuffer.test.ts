import { readFileSync } from 'node:fs';
import path from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { standsHostileBytes } from '../../test/fuzz/hostile.ts';
import { kernelText, tracePage } from '../../test/fuzz/targets/linux.ts';
import { TracingError } from '../deviceErrors.ts';
import {
  droppedEvents,
  EventKind,
  parseEventFormat,
  parsePage,
  parsePageLayout,
} from './ringBuffer.ts';

const fixtures = path.resolve(import.meta.dirname, '../../test/fixtures/trace');
const text = (name: string) => readFileSync(path.join(fixtures, name), 'utf8');
const layout = parsePageLayout(text('header_page'));
const format = parseEventFormat(text('block_rq_complete.format'));
/** Read from trace_pipe_raw (Linux 6.18) after 5 writes of 4 KiB, a discard, a write-zeroes and 3 writes of a sector. */
const page = new Uint8Array(readFileSync(path.join(fixtures, 'page.bin')));

interface Event {
  devT: number;
  sector: number;
  sectorCount: number;
  kind: EventKind;
}

function parse(bytes: Uint8Array): { events: Event[]; lost: boolean } {
  const events: Event[] = [];
  const { lost } = parsePage(bytes, {
    layout,
    formats: [format],
    sink: ({ devT, sector, sectorCount, kind }) => events.push({ devT, sector, sectorCount, kind }),
  });
  return { events, lost };
}

function changed(change: (view: DataView) => void): Uint8Array {
  const copy = page.slice();
  change(new DataView(copy.buffer));
  return copy;
}

describe("the kernel's trace pages", () => {
  test('of a partly filled page give every event that the kernel traced', () => {
    const devT = 7 << 20;
    const { events, lost } = parse(page);
    expect(lost).toBe(false);
    expect(events).toEqual([
      ...[56, 64, 72, 80, 88].map((sector) => ({
        devT,
        sector,
        sectorCount: 8,
        kind: EventKind.write,
      })),
      { devT, sector: 2048, sectorCount: 4096, kind: EventKind.discard },
      { devT, sector: 16384, sectorCount: 2048, kind: EventKind.other },
      ...[0, 1, 2].map((sector) => ({ devT, sector, sectorCount: 1, kind: EventKind.write })),
    ]);
  });

  test('say when events were lost before them, also when their number is stored behind', () => {
    const commit = new DataView(page.buffer, page.byteOffset).getUint32(8, true);
    for (const bits of [0x80000000, 0xc0000000]) {
      const { events, lost } = parse(
        changed((view) => view.setUint32(8, (commit | bits) >>> 0, true)),
      );
      expect(lost).toBe(true);
      expect(events).toHaveLength(10);
    }
  });

  test('leave out commands that were passed through, which have no place on the disk', () => {
    const first = changed((view) =>
      view.setBigUint64(16 + 4 + format.sector, 2n ** 64n - 1n, true),
    );
    expect(parse(first).events).toHaveLength(9);
  });

  test('skip times and padding between events', () => {
    const shifted = new Uint8Array(4096);
    shifted.set(page.subarray(0, 16));
    const view = new DataView(shifted.buffer);
    view.setUint32(16, 30, true);
    view.setUint32(24, (5 << 5) | 29, true);
    view.setUint32(28, 8, true);
    shifted.set(page.subarray(16, 16 + 560), 36);
    view.setUint32(8, 560 + 20, true);
    expect(parse(shifted).events).toHaveLength(10);
  });

  test('that can not be are refused, and damage inside them is never read past their end', () => {
    expect(() => parse(changed((view) => view.setUint32(8, 4096, true)))).toThrow(/layout/);
    fc.assert(
      fc.property(fc.nat(560 - 1), fc.integer({ min: 0, max: 255 }), (at, value) => {
        try {
          parse(changed((view) => view.setUint8(16 + at, value)));
        } catch (error) {
          expect(error).toBeInstanceOf(TracingError);
        }
      }),
    );
  });

  test('whose last event is cut are refused: a write must not go missing without a word', () => {
    for (const commit of [559, 540, 513, 508])
      expect(() => parse(changed((view) => view.setUint32(8, commit, true)))).toThrow(TracingError);
    expect(() => parse(page.subarray(0, 10))).toThrow(TracingError);
  });

  test('of any bytes end in TracingError or in events that can be', async () => {
    await standsHostileBytes(tracePage);
  });
});

test('a field of another size than it is read with is refused, and one that lies outside of any page', () => {
  const good = text('block_rq_complete.format');
  for (const [from, to] of [
    ['sector_t sector;\toffset:16;\tsize:8', 'sector_t sector;\toffset:16;\tsize:4'],
    ['dev_t dev;\toffset:8;\tsize:4', 'dev_t dev;\toffset:8;\tsize:8'],
    ['nr_sector;\toffset:24;', 'nr_sector;\toffset:99999;'],
    ['ID: 2107', 'ID: 70000'],
  ] as const) {
    expect(good).toContain(from);
    expect(() => parseEventFormat(good.replace(from, to))).toThrow(TracingError);
  }
});

test('what the kernel says of itself, whatever it is, is read or refused with TracingError', async () => {
  await standsHostileBytes(kernelText);
});

test("a kernel without the fields we need is told by the event's name", () => {
  expect(() =>
    parseEventFormat('ID: 7\n\tfield:dev_t dev;\toffset:8;\tsize:4;\tsigned:0;\n'),
  ).toThrow(/no field rwbs/);
});

test('every way of losing events counts', () => {
  expect(
    droppedEvents(
      'entries: 5\noverrun: 3\ncommit overrun: 2\nbytes: 9\ndropped events: 1\nread events: 8\n',
    ),
  ).toBe(6);
});
