/** What spec.bandwidth means for each replica. Pure. */
import type { ProcessServer } from '../../crds/index.ts';
import type { Bandwidth } from '../../vault/documents/bandwidth.ts';

const BITS: Record<string, number> = { k: 1e3, M: 1e6, G: 1e9 };

type Spec = Pick<ProcessServer['spec'], 'bandwidth' | 'replicas'>;

/** The part of one replica, in bytes per second; undefined: no limit at any time. */
export function bandwidthOfEach({ bandwidth, replicas }: Spec): Bandwidth | undefined {
  if (bandwidth === undefined) return undefined;
  const part = (limit: string | undefined) =>
    limit === undefined ? {} : { bytesPerSecond: bytesPerSecond(limit, replicas) };
  return {
    ...part(bandwidth.limit),
    windows: (bandwidth.windows ?? []).map(({ limit, days, from, to, timeZone }) => ({
      ...part(limit),
      ...(days === undefined ? {} : { days }),
      from,
      to,
      timeZone,
    })),
  };
}

/** `limit` in bits per second, such as 50M. */
function bytesPerSecond(limit: string, replicas: number): number {
  const bits = Number(limit.slice(0, -1)) * (BITS[limit.slice(-1)] ?? 1);
  return Math.max(1, Math.floor(bits / 8 / replicas));
}
