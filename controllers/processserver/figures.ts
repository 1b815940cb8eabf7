import type { ProcessServerStatus } from '../../vault/documents/processServerStatus.ts';
import type { ProcessServerFigures } from '../openvaults/figures.ts';

/** A replica's figures for the metrics, as it reported them; its heartbeat's age is computed when somebody asks. */
export function replicaFigures(
  reported: ProcessServerStatus,
  clock: { vaultNow(): number },
): ProcessServerFigures {
  return {
    heartbeatMs: reported.heartbeatMs,
    vaultNow: clock.vaultNow,
    machines: reported.machines.length,
    cacheTotalBytes: reported.cache.totalBytes,
    cacheFreeBytes: reported.cache.freeBytes,
    inBytesPerSecond: reported.throughput.inBytesPerSecond,
    outBytesPerSecond: reported.throughput.outBytesPerSecond,
  };
}

/** Whether figures under that name are of a replica of the process server, whatever its mode and size were. */
export function isReplicaName(name: string, server: string): boolean {
  return name === server || name.replace(/-\d+$/, '') === server;
}
