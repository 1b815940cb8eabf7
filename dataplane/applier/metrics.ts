import { Counter, Gauge, Registry } from 'prom-client';

/** What an applier exports. Machines' gauges are replaced as a whole at each scrape, so that none outlives its machine. */
export class ApplierMetrics {
  readonly registry = new Registry();
  readonly points = new Counter({
    name: 'farshore_applier_points_total',
    help: 'Recovery points made.',
    registers: [this.registry],
  });
  readonly trimmed = new Counter({
    name: 'farshore_applier_trimmed_segments_total',
    help: 'Segments removed from journals, past their retention.',
    registers: [this.registry],
  });
  readonly verified = new Counter({
    name: 'farshore_applier_verified_leaves_total',
    help: 'Leaves of replicas read again and compared with their hashes.',
    registers: [this.registry],
  });
  readonly damaged = new Counter({
    name: 'farshore_applier_damaged_leaves_total',
    help: 'Leaves of replicas that were found not to be what their hashes say.',
    registers: [this.registry],
  });
  readonly errors = new Counter({
    name: 'farshore_applier_errors_total',
    help: 'Failed attempts to apply a machine, by code of the error.',
    labelNames: ['code'],
    registers: [this.registry],
  });
  readonly #behind = new Gauge({
    name: 'farshore_applier_behind_bytes',
    help: 'Journal in the vault that is not applied to the replica yet.',
    labelNames: ['namespace', 'machine'],
    registers: [this.registry],
  });
  readonly #applied = new Gauge({
    name: 'farshore_applier_applied_lsn',
    help: 'LSN up to which the replica is applied.',
    labelNames: ['namespace', 'machine'],
    registers: [this.registry],
  });
  readonly #point = new Gauge({
    name: 'farshore_applier_recovery_point_timestamp_seconds',
    help: 'Time of the newest recovery point, Unix seconds.',
    labelNames: ['namespace', 'machine'],
    registers: [this.registry],
  });
  readonly #rate = new Gauge({
    name: 'farshore_applier_bytes_per_second',
    help: 'Journal bytes applied a second, when last something was applied.',
    labelNames: ['namespace', 'machine'],
    registers: [this.registry],
  });
  readonly #damaged = new Gauge({
    name: 'farshore_applier_damaged_leaves',
    help: 'Leaves of the replica that are damaged and that the source has not sent again yet.',
    labelNames: ['namespace', 'machine'],
    registers: [this.registry],
  });
  readonly #machines = new Gauge({
    name: 'farshore_applier_machines',
    help: 'Machines in the catalog, by whether they are applied without error.',
    labelNames: ['state'],
    registers: [this.registry],
  });

  /** The machines as they are now. */
  show(
    machines: readonly {
      labels: { namespace: string; machine: string };
      behindBytes: number;
      bytesPerSecond: number;
      appliedLsn: bigint;
      newestPointMs: number | undefined;
      damagedLeaves: number;
      failing: boolean;
    }[],
  ): void {
    for (const gauge of [this.#behind, this.#applied, this.#point, this.#rate, this.#damaged])
      gauge.reset();
    for (const machine of machines) {
      this.#behind.set(machine.labels, machine.behindBytes);
      this.#rate.set(machine.labels, machine.bytesPerSecond);
      this.#damaged.set(machine.labels, machine.damagedLeaves);
      this.#applied.set(machine.labels, Number(machine.appliedLsn));
      if (machine.newestPointMs !== undefined)
        this.#point.set(machine.labels, machine.newestPointMs / 1000);
    }
    const failing = machines.filter((machine) => machine.failing).length;
    this.#machines.set({ state: 'failing' }, failing);
    this.#machines.set({ state: 'healthy' }, machines.length - failing);
  }
}
