import { z } from 'zod';
import { isTimeZone, weeklyWindowSchema, windowHolds } from './weeklyWindow.ts';

const bytesPerSecond = z.number().int().positive();

/** How much a process server may upload into the vault, by time of the week. */
export const bandwidthSchema = z.object({
  /** While no window holds; absent: no limit. */
  bytesPerSecond: bytesPerSecond.optional(),
  /** Of those that hold, the first counts. Without a limit: none while it holds. */
  windows: z
    .array(weeklyWindowSchema.extend({ bytesPerSecond: bytesPerSecond.optional() }))
    .max(32),
});
export type Bandwidth = z.infer<typeof bandwidthSchema>;

/** Bytes per second at a moment (Unix milliseconds); undefined: no limit. A window whose time zone is not known here never holds. */
export function limitInForce(bandwidth: Bandwidth, atMs: number): number | undefined {
  for (const window of bandwidth.windows)
    if (isTimeZone(window.timeZone) && windowHolds(window, atMs)) return window.bytesPerSecond;
  return bandwidth.bytesPerSecond;
}

/** Time zones of its windows that are not known here. */
export function unknownTimeZones(bandwidth: Bandwidth): string[] {
  const all = new Set(bandwidth.windows.map(({ timeZone }) => timeZone));
  return [...all].filter((timeZone) => !isTimeZone(timeZone));
}
