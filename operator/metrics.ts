/**
 * What the operator tells Prometheus. Ages are computed at the scrape: RPO rises as long as nothing new is durable, whoever died.
 *
 * Labels are namespace and name only (never a disk, a point or an error's text); histograms are by controller, never by machine.
 */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import type { Figures } from '../controllers/openvaults/figures.ts';

export interface OperatorMetrics {
  readonly registry: Registry;
  /** Called by each controller's loop after each reconcile. */
  observeReconcile(run: { controller: string; seconds: number; error?: string | undefined }): void;
  setLeader(leading: boolean): void;
}

export function operatorMetrics(deps: {
  figures: Figures;
  queueDepths: () => Record<string, number>;
}): OperatorMetrics {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  addMachineMetrics(registry, deps.figures);
  addProcessServerMetrics(registry, deps.figures);
  addFailoverMetrics(registry, deps.figures);
  gauge(
    registry,
    'farshore_queue_depth',
    'Keys waiting to be reconciled',
    ['controller'],
    (set) => {
      for (const [controller, depth] of Object.entries(deps.queueDepths()))
        set({ controller }, depth);
    },
  );
  return { registry, ...reconcileMetrics(registry) };
}

function reconcileMetrics(
  registry: Registry,
): Pick<OperatorMetrics, 'observeReconcile' | 'setLeader'> {
  const durations = new Histogram({
    name: 'farshore_reconcile_duration_seconds',
    help: 'How long one reconcile took',
    labelNames: ['controller'],
    buckets: [0.005, 0.02, 0.1, 0.5, 2, 10, 60],
    registers: [registry],
  });
  const errors = new Counter({
    name: 'farshore_reconcile_errors_total',
    help: 'Reconciles that ended in an error, by its stable code',
    labelNames: ['controller', 'code'],
    registers: [registry],
  });
  const leader = new Gauge({
    name: 'farshore_leader',
    help: '1 while this operator holds the lease',
    registers: [registry],
  });
  return {
    observeReconcile: ({ controller, seconds, error }) => {
      durations.observe({ controller }, seconds);
      if (error !== undefined) errors.inc({ controller, code: error });
    },
    setLeader: (leading) => leader.set(leading ? 1 : 0),
  };
}

type SetValue = (labels: Record<string, string>, value: number | undefined) => void;

/** A gauge that forgets everything before each scrape, so that what is gone is not reported for ever. */
function gauge(
  registry: Registry,
  name: string,
  help: string,
  labelNames: string[],
  collect: (set: SetValue) => void,
): void {
  new Gauge({
    name,
    help,
    labelNames,
    registers: [registry],
    collect() {
      this.reset();
      collect((labels, value) => {
        if (value !== undefined) this.set(labels, value);
      });
    },
  });
}

function addMachineMetrics(registry: Registry, figures: Figures): void {
  const labels = ['namespace', 'machine'];
  const seconds = (nowMs: number, thenMs: number | undefined) =>
    thenMs === undefined ? undefined : Math.max(0, (nowMs - thenMs) / 1000);
  gauge(
    registry,
    'farshore_rpo_seconds',
    'Now minus the time of the newest barrier that is durable in the vault',
    labels,
    (set) => {
      for (const { namespace, name, figures: machine } of figures.machines)
        set({ namespace, machine: name }, seconds(machine.vaultNow(), machine.durableMs));
    },
  );
  gauge(
    registry,
    'farshore_rpo_threshold_seconds',
    'The RPO above which the policy wants an alert',
    labels,
    (set) => {
      for (const { namespace, name, figures: machine } of figures.machines)
        set({ namespace, machine: name }, machine.rpoThresholdSeconds);
    },
  );
  gauge(
    registry,
    'farshore_recovery_point_age_seconds',
    'Age of the newest recovery point',
    labels,
    (set) => {
      for (const { namespace, name, figures: machine } of figures.machines)
        set({ namespace, machine: name }, seconds(machine.vaultNow(), machine.newestPointMs));
    },
  );
  gauge(
    registry,
    'farshore_position_lsn',
    'Positions of a machine: captured, journaled, uploaded, applied, recoveryPoint',
    [...labels, 'position'],
    (set) => {
      for (const { namespace, name, figures: machine } of figures.machines)
        for (const [position, lsn] of Object.entries(machine.lsn))
          set({ namespace, machine: name, position }, Number(lsn));
    },
  );
  gauge(
    registry,
    'farshore_behind_bytes',
    'Bytes that wait at a stage: agent (not sent), cache (not uploaded), applier (not applied)',
    [...labels, 'stage'],
    (set) => {
      for (const { namespace, name, figures: machine } of figures.machines)
        for (const [stage, bytes] of Object.entries(machine.bytesBehind))
          set({ namespace, machine: name, stage }, bytes);
    },
  );
  gauge(
    registry,
    'farshore_initial_replication_ratio',
    'Progress of the initial replication or a resync, 0 to 1; absent when neither runs',
    labels,
    (set) => {
      for (const { namespace, name, figures: machine } of figures.machines)
        set({ namespace, machine: name }, machine.initialReplicationRatio);
    },
  );
}

function addProcessServerMetrics(registry: Registry, figures: Figures): void {
  const labels = ['namespace', 'process_server'];
  const add = (
    name: string,
    help: string,
    value: (server: ReturnType<typeof all>[number]['figures']) => number | undefined,
  ) =>
    gauge(registry, name, help, labels, (set) => {
      for (const server of all())
        set({ namespace: server.namespace, process_server: server.name }, value(server.figures));
    });
  const all = () => [...figures.processServers];
  add('farshore_process_server_heartbeat_age_seconds', 'Since its last report', (server) =>
    server.heartbeatMs === undefined
      ? undefined
      : Math.max(0, (server.vaultNow() - server.heartbeatMs) / 1000),
  );
  add('farshore_process_server_machines', 'Machines it protects', (server) => server.machines);
  add('farshore_process_server_cache_total_bytes', 'Size of its cache', (s) => s.cacheTotalBytes);
  add('farshore_process_server_cache_free_bytes', 'Free in its cache', (s) => s.cacheFreeBytes);
  add(
    'farshore_process_server_in_bytes_per_second',
    'Received from agents, as last reported',
    (server) => server.inBytesPerSecond,
  );
  add(
    'farshore_process_server_out_bytes_per_second',
    'Uploaded to the vault, as last reported',
    (server) => server.outBytesPerSecond,
  );
}

function addFailoverMetrics(registry: Registry, figures: Figures): void {
  gauge(
    registry,
    'farshore_failover_steps',
    'Steps of a failover by state',
    ['namespace', 'failover', 'type', 'state'],
    (set) => {
      for (const { namespace, name, figures: failover } of figures.failovers)
        for (const [state, count] of Object.entries(failover.steps))
          set({ namespace, failover: name, type: failover.type, state }, count);
    },
  );
  gauge(
    registry,
    'farshore_failover_rto_seconds',
    'From accepted to a passed health check',
    ['namespace', 'failover', 'type'],
    (set) => {
      for (const { namespace, name, figures: failover } of figures.failovers)
        set({ namespace, failover: name, type: failover.type }, failover.rtoSeconds);
    },
  );
  gauge(
    registry,
    'farshore_failover_rpo_seconds',
    'From the recovery point to the acceptance',
    ['namespace', 'failover', 'type'],
    (set) => {
      for (const { namespace, name, figures: failover } of figures.failovers)
        set({ namespace, failover: name, type: failover.type }, failover.rpoSeconds);
    },
  );
}
