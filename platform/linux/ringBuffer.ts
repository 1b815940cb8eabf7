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
/** No page and no event of it is larger, on any machine. */
const PAGE_MAX = 65536;
/** What is read of an event's fields; the operation's size varies between kernels. */
const FIELD_SIZES = { dev: 4, sector: 8, nr_sector: 4 };

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

/**
 * Hands out the events of one page. Returns true when the kernel says that it dropped events before this page. Throws TracingError for
 * a page that can't be: an event that was skipped would be a write that nobody sees.
 */
export function parsePage(
  page: Uint8Array,
  options: { layout: PageLayout; formats: readonly EventFormat[]; sink: EventSink },
): { lost: boolean } {
  const { layout } = options;
  const view = new DataView(page.buffer, page.byteOffset, page.byteLength);
  if (layout.commitOffset + 4 > page.length) throw pageInvalid('its header is cut');
  const commit = view.getUint32(layout.commitOffset, true);
  const end = layout.dataOffset + (commit & LENGTH_MASK);
  if (end > page.length)
    throw new TracingError(
      `The kernel's trace page says it holds ${end} bytes, but it has ${page.length}: its layout is not the one this build knows. Report the kernel version.`,
    );
  for (let offset = layout.dataOffset; offset < end; ) {
    if (offset + 4 > end) throw pageInvalid(`an event at ${offset} is cut`);
    const header = view.getUint32(offset, true);
    const typeLength = header & 31;
    if (typeLength === PADDING && header >>> 5 === 0) break;
    const next = offset + eventSize(view, { offset, end, typeLength });
    if (next > end) throw pageInvalid(`an event at ${offset} ends at ${next}, behind the page`);
    if (typeLength < PADDING)
      readEvent(view, { start: typeLength === 0 ? offset + 8 : offset + 4, end: next }, options);
    offset = next;
  }
  return { lost: (commit & LOST_BIT) !== 0 };
}

/** Bytes of an event, header included. */
function eventSize(
  view: DataView,
  event: { offset: number; end: number; typeLength: number },
): number {
  const { offset, end, typeLength } = event;
  if (typeLength >= TIME_EXTEND) return 8;
  if (typeLength !== 0 && typeLength !== PADDING) return 4 + typeLength * 4;
  if (offset + 8 > end) throw pageInvalid(`an event at ${offset} is cut`);
  return 4 + view.getUint32(offset + 4, true);
}

function readEvent(
  view: DataView,
  place: { start: number; end: number },
  options: { formats: readonly EventFormat[]; sink: EventSink },
): void {
  const { start: data, end } = place;
  if (data + 2 > end) throw pageInvalid(`an event at ${data} has no id`);
  const id = view.getUint16(data, true);
  const format = options.formats.find((candidate) => candidate.id === id);
  if (format === undefined) return;
  if (data + sizeOf(format) > end)
    throw pageInvalid(`an event at ${data} ends at ${end}, before its fields do`);
  const low = view.getUint32(data + format.sector, true);
  const high = view.getUint32(data + format.sector + 4, true);
  // Sector -1: a command passed through by SG_IO or an NVMe ioctl.
  if (low === 0xffffffff && high === 0xffffffff) return;
  options.sink({
    id: format.id,
    devT: view.getUint32(data + format.dev, true),
    sector: high * 2 ** 32 + low,
    sectorCount: view.getUint32(data + format.sectorCount, true),
    kind: kindOf(view, data + format.operation, format.operationSize),
  });
}

/** Bytes of an event's data up to the end of the last field that is read. */
function sizeOf(format: EventFormat): number {
  return Math.max(
    format.dev + FIELD_SIZES.dev,
    format.sector + FIELD_SIZES.sector,
    format.sectorCount + FIELD_SIZES.nr_sector,
    format.operation + format.operationSize,
  );
}

function pageInvalid(problem: string): TracingError {
  return new TracingError(
    `The kernel's trace page can't be read: ${problem}. Its layout is not the one this build knows. Report the kernel version.`,
  );
}

/** `rwbs`: an F before the operation means a flush first; D alone is a discard, DE an erase, N anything unnamed. */
function kindOf(view: DataView, start: number, size: number): EventKind {
  let at = start;
  if (view.getUint8(at) === 0x46 && size > 1) at += 1;
  const letter = view.getUint8(at);
  if (letter === 0x57) return EventKind.write;
  const second = at + 1 < start + size ? view.getUint8(at + 1) : 0;
  if (letter === 0x44 && second !== 0x45) return EventKind.discard;
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
  if (!(id <= 0xffff)) throw new TracingError("A trace event's format has no ID that events have.");
  const operation = fieldOf(text, 'rwbs');
  return {
    id,
    dev: numberOf(text, 'dev'),
    sector: numberOf(text, 'sector'),
    sectorCount: numberOf(text, 'nr_sector'),
    operation: operation.offset,
    operationSize: operation.size,
  };
}

/** Where a number is; it must be as wide as it will be read. */
function numberOf(text: string, name: keyof typeof FIELD_SIZES): number {
  const { offset, size } = fieldOf(text, name);
  if (size !== FIELD_SIZES[name])
    throw new TracingError(
      `The kernel's trace events have a field ${name} of ${size} bytes, not ${FIELD_SIZES[name]}: this kernel can't be tracked by this build. Report the kernel version.`,
    );
  return offset;
}

function fieldOf(text: string, name: string): { offset: number; size: number } {
  const match = new RegExp(
    `field:[^;]*\\b${name}(?:\\[\\d*\\])?;\\s*offset:(\\d+);\\s*size:(\\d+);`,
  ).exec(text);
  if (match === null)
    throw new TracingError(
      `The kernel's trace events have no field ${name}: this kernel can't be tracked by this build. Report the kernel version.`,
    );
  const [offset, size] = [Number(match[1]), Number(match[2])];
  if (size === 0 || offset + size > PAGE_MAX)
    throw new TracingError(
      `The kernel says that field ${name} of its trace events has ${size} bytes at ${offset}, which can't be. Report the kernel version.`,
    );
  return { offset, size };
}

/** Events that a CPU's buffer lost since the instance was made, for whatever reason. */
export function droppedEvents(stats: string): number {
  return ['overrun', 'commit overrun', 'dropped events'].reduce(
    (sum, name) => sum + Number(new RegExp(`^${name}: (\\d+)$`, 'm').exec(stats)?.[1] ?? 0),
    0,
  );
}
