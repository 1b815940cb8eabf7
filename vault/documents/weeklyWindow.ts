/**
 * A time of the week that comes again: some days, from one time of day to another, as the clocks of a time zone show it. What the
 * clock on the wall says decides, so a window keeps its hours through the change to summer time and back: times that the clock skips
 * are not waited for, and times that it shows twice count twice.
 */
import { z } from 'zod';
import { FarshoreError } from '../../platform/errors.ts';

export const WEEKDAYS = ['Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat', 'Sun'] as const;
export type Weekday = (typeof WEEKDAYS)[number];

/** `HH:MM`, 00:00 to 23:59. */
const timeOfDay = z.string().regex(/^([01][0-9]|2[0-3]):[0-5][0-9]$/);

export const weeklyWindowSchema = z.object({
  /** The days on which it begins; absent: every day. */
  days: z.array(z.enum(WEEKDAYS)).min(1).max(7).optional(),
  from: timeOfDay,
  /** The first minute after it. Not later than `from`: it ends on the day after the one on which it began. */
  to: timeOfDay,
  /** An IANA time zone, as Europe/Zurich. */
  timeZone: z.string().min(1).max(64),
});
export type WeeklyWindow = z.infer<typeof weeklyWindowSchema>;

/**
 * Whether a window holds at a moment (Unix milliseconds). The answer only ever changes at a whole minute of Unix time. Throws
 * FarshoreError (`TimeZoneUnknown`).
 */
export function windowHolds(window: WeeklyWindow, atMs: number): boolean {
  const { day, minute } = wallClock(window.timeZone, atMs);
  const from = minutesOf(window.from);
  const to = minutesOf(window.to);
  if (from < to) return minute >= from && minute < to && beginsOn(window, day);
  return minute >= from ? beginsOn(window, day) : minute < to && beginsOn(window, day - 1);
}

/**
 * The moment (Unix milliseconds, a whole minute) after `afterMs` at which a window next begins or ends; undefined for one that
 * always holds. Throws FarshoreError (`TimeZoneUnknown`).
 */
export function windowChanges(window: WeeklyWindow, afterMs: number): number | undefined {
  const before = windowHolds(window, afterMs);
  let atMs = Math.floor(afterMs / MINUTE_MS) * MINUTE_MS;
  while (atMs - afterMs <= PERIOD_MS) {
    atMs += stepMs(window, atMs);
    if (windowHolds(window, atMs) !== before) return atMs;
  }
  return undefined;
}

/** Whether this machine's time zone data knows a name. */
export function isTimeZone(name: string): boolean {
  try {
    formatOf(name);
    return true;
  } catch {
    return false;
  }
}

const MINUTE_MS = 60_000;
const DAY_MINUTES = 1440;
/** A week, and what clocks may be changed by in it. */
const PERIOD_MS = 8 * DAY_MINUTES * MINUTE_MS;
/** Clocks are changed at quarters of an hour of Unix time. */
const QUARTER_MS = 15 * MINUTE_MS;

/** How far one can go without passing a border: to the next one, or in quarters of an hour while the clocks are changed on the way. */
function stepMs(window: WeeklyWindow, atMs: number): number {
  const { minute } = wallClock(window.timeZone, atMs);
  const [toFrom, toTo] = [window.from, window.to].map(
    (border) => ((minutesOf(border) - minute + DAY_MINUTES - 1) % DAY_MINUTES) + 1,
  ) as [number, number];
  const minutes = Math.min(toFrom, toTo);
  const there = wallClock(window.timeZone, atMs + minutes * MINUTE_MS);
  const unchanged = there.minute === (minute + minutes) % DAY_MINUTES;
  return unchanged ? minutes * MINUTE_MS : QUARTER_MS - (atMs % QUARTER_MS);
}

function beginsOn({ days }: WeeklyWindow, day: number): boolean {
  return days === undefined || days.includes(WEEKDAYS[(day + 7) % 7] as Weekday);
}

function minutesOf(time: string): number {
  return Number(time.slice(0, 2)) * 60 + Number(time.slice(3));
}

/** Day of the week (0: Monday) and minute of the day that the clocks of a time zone show. */
function wallClock(timeZone: string, atMs: number): { day: number; minute: number } {
  const parts = formatOf(timeZone).formatToParts(atMs);
  const shown = (part: string) => parts.find(({ type }) => type === part)?.value ?? '';
  return {
    day: WEEKDAYS.indexOf(shown('weekday') as Weekday),
    minute: Number(shown('hour')) * 60 + Number(shown('minute')),
  };
}

/** Making one is slow, and there are few time zones. */
const formats = new Map<string, Intl.DateTimeFormat>();

function formatOf(timeZone: string): Intl.DateTimeFormat {
  const known = formats.get(timeZone);
  if (known !== undefined) return known;
  try {
    const format = new Intl.DateTimeFormat('en-US', {
      timeZone,
      weekday: 'short',
      hour: '2-digit',
      minute: '2-digit',
      hourCycle: 'h23',
    });
    formats.set(timeZone, format);
    return format;
  } catch (cause) {
    throw new FarshoreError(
      'TimeZoneUnknown',
      `The time zone ${JSON.stringify(timeZone)} is not known here. Use a name of the IANA time zone database, such as Europe/Zurich or UTC.`,
      { cause },
    );
  }
}
