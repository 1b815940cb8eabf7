/** Real capture of a loop machine into images, without a process server. */
import path from 'node:path';
import {
  type BarrierDeps,
  type BarrierRequest,
  runBarrier,
} from '../../../dataplane/capture/barrier.ts';
import { CapturedDisk } from '../../../dataplane/capture/disk.ts';
import { ReadRate } from '../../../dataplane/capture/readRate.ts';
import { Resync } from '../../../dataplane/capture/resync.ts';
import { RECHECK_MS, Scrub, type ScrubProgress } from '../../../dataplane/capture/scrub.ts';
import { Tracking } from '../../../dataplane/capture/tracking.ts';
import { linuxBlockDevices } from '../../../platform/linux/blockDevice.ts';
import { LinuxFreezer } from '../../../platform/linux/freezer.ts';
import { linuxHooks } from '../../../platform/linux/hooks.ts';
import { linuxMachine } from '../../../platform/linux/machine.ts';
import { LinuxTracer } from '../../../platform/linux/tracer.ts';
import { systemClock } from '../../../platform/node/clock.ts';
import { silentLogger } from '../../fakes/silentLogger.ts';
import { ImageSink } from './imageSink.ts';
import { type LoopMachine, sh } from './machine.ts';

const clock = systemClock;

export class Rig {
  readonly sink = new ImageSink();
  readonly freezer = new LinuxFreezer({ clock });
  readonly tracer: LinuxTracer;
  readonly instance: string;
  readonly targets = new Map<string, string>();
  tracking!: Tracking;
  readonly #machine: LoopMachine;
  readonly #readRate = new ReadRate(clock);
  #scrub: Scrub | undefined;
  #pumping = false;
  #pump: Promise<void> = Promise.resolve();
  pumpError: unknown;

  constructor(machine: LoopMachine, options: { bufferKb?: number } = {}) {
    this.#machine = machine;
    const name = `farshore-test-${process.pid}-${path.basename(machine.directory).slice(-6)}`;
    this.instance = `/sys/kernel/tracing/instances/${name}`;
    this.tracer = new LinuxTracer({ name, clock, ...options });
    machine.onCleanUp(() =>
      sh(
        `for n in $(seq 40); do [ -d ${this.instance} ] || break; rmdir ${this.instance} 2>/dev/null || sleep 0.1; done`,
      ),
    );
  }

  async open(devices: readonly string[]): Promise<void> {
    const disks: CapturedDisk[] = [];
    for (const [index, path_] of devices.entries()) {
      const device = await linuxBlockDevices.open(path_);
      const identity = await device.identity();
      disks.push(new CapturedDisk({ index, device, identity }));
      const target = path.join(this.#machine.directory, `copy-${index}.img`);
      this.targets.set(path_, target);
      this.sink.add(index, { path: target, sizeBytes: identity.sizeBytes });
    }
    this.tracking = new Tracking({ tracer: this.tracer, clock, disks });
    await this.tracer.start(disks.map((disk) => ({ ...disk.identity, multiRangeDiscards: false })));
    await this.tracking.settle({ patienceMs: 3000 });
    this.#pumping = true;
    this.#pump = this.#run();
  }

  async resync(options: { assumeZero: boolean }): Promise<Resync> {
    const resync = new Resync({
      disks: this.tracking.disks,
      progress: {
        reason: 'Initial',
        startedMs: clock.now(),
        beginLsn: 0n,
        assumeZero: options.assumeZero,
        cursors: new Map(),
        bytesSent: 0,
      },
    });
    await resync.run({ sink: this.sink, clock, checkpoint: async () => undefined });
    return resync;
  }

  /** Looks at leaves until `enough`, and at the end of the disks at the latest. */
  async scrub(enough: () => boolean = () => false): Promise<Readonly<ScrubProgress>> {
    const { tracking, sink } = this;
    this.#scrub ??= new Scrub({ tracking, clock, log: silentLogger });
    const { signal } = new AbortController();
    while (!enough()) {
      const { outcome, ended } = await this.#scrub.step({ sink, signal });
      if (ended !== undefined) return ended;
      if (outcome === 'Again') await clock.sleep(RECHECK_MS);
    }
    return this.#scrub.progress;
  }

  /** A barrier, which the vault then has; `whileFrozen` runs after everything was read and before the thaw. */
  async barrier(
    options: Partial<BarrierRequest> & {
      whileFrozen?: () => Promise<void> | void;
      deadlineMs?: number;
    } = {},
  ): Promise<{ freezeMs: number }> {
    const { whileFrozen, deadlineMs = 2000, ...request } = options;
    const deps: BarrierDeps = {
      tracking: this.tracking,
      sink: this.sink,
      clock,
      freezer: whileFrozen === undefined ? this.freezer : this.#pausing(whileFrozen),
      hooks: linuxHooks,
      machine: linuxMachine(),
      readRate: this.#readRate,
      limits: { deadlineMs, finalDeadlineMs: 20_000 },
      log: silentLogger,
      ready: async () => undefined,
      deliver: async () => {
        const lsn = this.sink.nextLsn;
        this.sink.nextLsn += 1n;
        for (const { dirt } of this.tracking.disks) dirt.barrierSent(lsn);
        return lsn;
      },
      uploaded: async () => undefined,
      frozen: () => undefined,
    };
    const made = await runBarrier({ consistency: 'Crash', final: false, ...request }, deps);
    for (const { dirt } of this.tracking.disks) dirt.barrierUploaded(made.lsn);
    return made;
  }

  async close(): Promise<void> {
    this.#pumping = false;
    await this.#pump;
    await this.tracer.stop();
    for (const disk of this.tracking?.disks ?? []) await disk.device.close();
    this.sink.close();
  }

  #pausing(whileFrozen: () => Promise<void> | void) {
    const { freezer } = this;
    return {
      plan: freezer.plan.bind(freezer),
      sync: freezer.sync.bind(freezer),
      prepare: freezer.prepare.bind(freezer),
      freeze: freezer.freeze.bind(freezer),
      check: freezer.check.bind(freezer),
      hold: freezer.hold.bind(freezer),
      held: freezer.held.bind(freezer),
      adoptHeld: freezer.adoptHeld.bind(freezer),
      thaw: async (plan: Parameters<LinuxFreezer['thaw']>[0]) => {
        await whileFrozen();
        return await freezer.thaw(plan);
      },
    };
  }

  async #run(): Promise<void> {
    while (this.#pumping) {
      try {
        await this.tracking.absorb();
      } catch (error) {
        this.pumpError = error;
        return;
      }
      await clock.sleep(100);
    }
  }
}
