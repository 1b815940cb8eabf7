/**
 * The pages that the kernel's `trace_pipe_raw` gives, and the block events in them.
 *
 * A page (its layout is in tracefs, `events/header_page`; little-endian):
 *
 *   0   u64   time of the page's first event
 *   8   long  commit: bytes of events that follow; bit 31: events were lost before this page, bit 30: their number is stored
 *   16  …     events
 *
 * An event starts with a u32: its low 5 bits are type_len, the rest is a time delta.
 *   type_len 0        u32 length (counting itself), then data
 *            1…28     type_len × 4 bytes of data
 *            29       padding: with delta 0 the rest of the page is empty, else u32 length
 *            30, 31   a time, 4 more bytes
 * Data starts with the u16 id of the event; where its fields are stands in the event's `format` file.
 */
import { TracingError } from '../deviceErrors.ts';

const LOST_BIT = 0x80000000;
const LENGTH_MASK = 0x3fffffff;
const PADDING = 29;
const TIME_EXTEND = 30;

export interface PageLayout {
  commitOffset: number;
  dataOffset: number;
}

/** Where an event has its fields, from the start of its data. */
export interface EventFormat {
  id: number;
  dev: number;
  sector: number;
  sectorCount: number;
  operation: number;
  operationSize: number;
}

/** The trace worker hands events on as five numbers each: event id, devT, sector, sector count, kind. */
export const EVENT_NUMBERS = 5;

export const EventKind = { write: 0, discard: 1, other: 2 } as const;
export type EventKind = (typeof EventKind)[keyof typeof EventKind];

/** Called for each block event. Passthrough commands, which have no place on the disk, are left out. */
export type EventSink = (event: {
  id: number;
  devT: number;
  sector: number;
  sectorCount: number;
  kind: EventKind;
}) => void;

/** Hands out the events of one page. Returns true when the kernel says that it dropped events before this page. */
export function parsePage(
  page: Uint8Array,
  options: { layout: PageLayout; formats: readonly EventFormat[]; sink: EventSink },
): { lost: boolean } {
  const { layout, formats, sink } = options;
  const view = new DataView(page.buffer, page.byteOffset, page.byteLength);
  const commit = view.getUint32(layout.commitOffset, true);
  const end = layout.dataOffset + (commit & LENGTH_MASK);
  if (end > page.length)
    throw new TracingError(
      `The kernel's trace page says it holds ${end} bytes, but it has ${page.length}: its layout is not the one this build knows. Report the kernel version.`,
    );
  let offset = layout.dataOffset;
  while (offset + 4 <= end) {
    const header = view.getUint32(offset, true);
    const typeLength = header & 31;
    if (typeLength >= TIME_EXTEND) {
      offset += 8;
      continue;
    }
    if (typeLength === PADDING) {
      if (header >>> 5 === 0) break;
      offset += 4 + view.getUint32(offset + 4, true);
      continue;
    }
    const data = typeLength === 0 ? offset + 8 : offset + 4;
    offset += 4 + (typeLength === 0 ? view.getUint32(offset + 4, true) : typeLength * 4);
    if (offset > end) break;
    const id = view.getUint16(data, true);
    const format = formats.find((candidate) => candidate.id === id);
    if (format !== undefined) readEvent(view, data, format, sink);
  }
  return { lost: (commit & LOST_BIT) !== 0 };
}

function readEvent(view: DataView, data: number, format: EventFormat, sink: EventSink): void {
  const low = view.getUint32(data + format.sector, true);
  const high = view.getUint32(data + format.sector + 4, true);
  // Sector -1: a command passed through by SG_IO or an NVMe ioctl.
  if (low === 0xffffffff && high === 0xffffffff) return;
  sink({
    id: format.id,
    devT: view.getUint32(data + format.dev, true),
    sector: high * 2 ** 32 + low,
    sectorCount: view.getUint32(data + format.sectorCount, true),
    kind: kindOf(view, data + format.operation, format.operationSize),
  });
}

/** `rwbs`: an F before the operation means a flush first; D alone is a discard, DE an erase, N anything unnamed. */
function kindOf(view: DataView, start: number, size: number): EventKind {
  let at = start;
  if (view.getUint8(at) === 0x46 && size > 1) at += 1;
  const letter = view.getUint8(at);
  if (letter === 0x57) return EventKind.write;
  if (letter === 0x44 && view.getUint8(at + 1) !== 0x45) return EventKind.discard;
  return EventKind.other;
}

/** Reads `events/header_page`. */
export function parsePageLayout(text: string): PageLayout {
  const commitOffset = fieldOf(text, 'commit').offset;
  const dataOffset = fieldOf(text, 'data').offset;
  return { commitOffset, dataOffset };
}

/** Reads an event's `format` file. */
export function parseEventFormat(text: string): EventFormat {
  const id = Number(/^ID: (\d+)$/m.exec(text)?.[1]);
  if (Number.isNaN(id)) throw new TracingError("A trace event's format has no ID.");
  const operation = fieldOf(text, 'rwbs');
  return {
    id,
    dev: fieldOf(text, 'dev').offset,
    sector: fieldOf(text, 'sector').offset,
    sectorCount: fieldOf(text, 'nr_sector').offset,
    operation: operation.offset,
    operationSize: operation.size,
  };
}

function fieldOf(text: string, name: string): { offset: number; size: number } {
  const match = new RegExp(
    `field:[^;]*\\b${name}(?:\\[\\d*\\])?;\\s*offset:(\\d+);\\s*size:(\\d+);`,
  ).exec(text);
  if (match === null)
    throw new TracingError(
      `The kernel's trace events have no field ${name}: this kernel can't be tracked by this build. Report the kernel version.`,
    );
  return { offset: Number(match[1]), size: Number(match[2]) };
}

/** Events that a CPU's buffer lost since the instance was made, for whatever reason. */
export function droppedEvents(stats: string): number {
  return ['overrun', 'commit overrun', 'dropped events'].reduce(
    (sum, name) => sum + Number(new RegExp(`^${name}: (\\d+)$`, 'm').exec(stats)?.[1] ?? 0),
    0,
  );
}
