/**
 * What a process server tells Prometheus: the data plane's own view. RPO is the operator's to tell, because it must rise when this
 * process is dead. Labels are namespace and machine; histograms are never per machine.
 */
import { collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import type { MachineStatus } from '../../vault/documents/machineStatus.ts';
import type { ProcessServerStatus } from '../../vault/documents/processServerStatus.ts';

export interface MachineFigures {
  namespace: string;
  machine: string;
  status: MachineStatus;
}

export interface ServerFigures {
  status: ProcessServerStatus;
  totals: { receivedBytes: number; uploadedBytes: number };
  machines: readonly MachineFigures[];
}

export interface ProcessServerMetrics {
  readonly contentType: string;
  observeFreeze(milliseconds: number): void;
  /** The scrape's answer. */
  text(figures: ServerFigures): Promise<string>;
}

type Read = (figures: ServerFigures) => number;
type ReadMachine = (status: MachineStatus) => number | undefined;

const serverGauges: readonly (readonly [string, string, Read])[] = [
  ['cache_total_bytes', 'Size of the cache volume', ({ status }) => status.cache.totalBytes],
  ['cache_free_bytes', 'Free bytes of the cache volume', ({ status }) => status.cache.freeBytes],
  [
    'oldest_not_uploaded_timestamp_seconds',
    'When the oldest record that is not in the vault was journaled; 0 when all are',
    ({ status }) => (status.cache.oldestNotUploadedMs ?? 0) / 1000,
  ],
  [
    'received_bytes_total',
    'Bytes of records received from agents since the process started',
    ({ totals }) => totals.receivedBytes,
  ],
  [
    'uploaded_bytes_total',
    'Bytes of records made durable in the vault since the process started',
    ({ totals }) => totals.uploadedBytes,
  ],
  [
    'upload_limit_bytes_per_second',
    'The limit of uploads in force; 0 while there is none',
    ({ status }) => status.uploadLimitBytesPerSecond ?? 0,
  ],
  [
    'clock_offset_seconds',
    "The process server's clock minus the vault's",
    ({ status }) => status.clockOffsetMs / 1000,
  ],
  [
    'assignments_generation',
    'Generation of the assignments that are followed',
    ({ status }) => status.assignments?.generation ?? 0,
  ],
];

const machineGauges: readonly (readonly [string, string, ReadMachine])[] = [
  ['agent_connected', '1 while the agent is connected', ({ agent }) => Number(agent.connected)],
  [
    'agent_last_seen_timestamp_seconds',
    'When the agent was last heard of',
    ({ agent }) => (agent.lastSeenMs === undefined ? undefined : agent.lastSeenMs / 1000),
  ],
  ['captured_lsn', 'LSN captured', ({ positions }) => Number(positions.capturedLsn)],
  ['journaled_lsn', 'LSN durable in the cache', ({ positions }) => Number(positions.journaledLsn)],
  ['uploaded_lsn', 'LSN durable in the vault', ({ positions }) => Number(positions.uploadedLsn)],
  [
    'agent_backlog_bytes',
    'Bytes of dirt that the agent has not sent',
    ({ backlog }) => backlog.agentBytes,
  ],
  ['cache_backlog_bytes', 'Bytes journaled and not uploaded', ({ backlog }) => backlog.cacheBytes],
  [
    'uploaded_barrier_timestamp_seconds',
    'Time of the newest barrier that is durable in the vault',
    ({ uploadedBarrier }) =>
      uploadedBarrier === undefined ? undefined : uploadedBarrier.timeMs / 1000,
  ],
  ['barriers_total', 'Barriers taken since the process started', ({ barriers }) => barriers.count],
  ['barriers_voided_total', 'Barriers voided', ({ barriers }) => barriers.voided],
  [
    'freeze_max_seconds',
    'Longest freeze since the process started',
    ({ barriers }) => barriers.maxFreezeMs / 1000,
  ],
  [
    'fenced',
    '1 while another writer or a seal holds the journal',
    ({ fenced }) => Number(fenced !== undefined),
  ],
];

const PREFIX = 'farshore_processserver_';

export function processServerMetrics(): ProcessServerMetrics {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const registers = [registry];
  const ofServer = serverGauges.map(([name, help, read]) => ({
    gauge: new Gauge({ name: `${PREFIX}${name}`, help, registers }),
    read,
  }));
  const labelNames = ['namespace', 'machine'] as const;
  const ofMachines = machineGauges.map(([name, help, read]) => ({
    gauge: new Gauge({ name: `${PREFIX}machine_${name}`, help, labelNames, registers }),
    read,
  }));
  const freezes = new Histogram({
    name: `${PREFIX}barrier_freeze_seconds`,
    help: 'How long filesystems were frozen for a barrier, over all machines',
    buckets: [0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2, 5],
    registers,
  });
  return {
    contentType: registry.contentType,
    observeFreeze: (milliseconds) => freezes.observe(milliseconds / 1000),
    text: async (figures) => {
      for (const { gauge, read } of ofServer) gauge.set(read(figures));
      for (const { gauge, read } of ofMachines) {
        gauge.reset();
        for (const { namespace, machine, status } of figures.machines) {
          const value = read(status);
          if (value !== undefined) gauge.set({ namespace, machine }, value);
        }
      }
      return await registry.metrics();
    },
  };
}
