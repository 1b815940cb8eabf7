/** Disks in memory whose content is in the vault, the process server that knows it, and a scrub over them. */
import { CapturedDisk } from '../../dataplane/capture/disk.ts';
import { runPass } from '../../dataplane/capture/pass.ts';
import { RECHECK_MS, Scrub, type ScrubProgress } from '../../dataplane/capture/scrub.ts';
import type { RecordSink } from '../../dataplane/capture/sink.ts';
import { Tracking } from '../../dataplane/capture/tracking.ts';
import { LEAF_SIZE } from '../../dataplane/journal/record.ts';
import { LeafKnowledge, type LeafQuestion } from './leafKnowledge.ts';
import { ManualClock } from './manualClock.ts';
import { recordingLogger } from './silentLogger.ts';
import { FakeDisk, FakeTracer } from './sourceMachine.ts';

const LEAVES = [20, 36];
/** The last leaf of each disk is a part of one. */
const CUT = LEAF_SIZE - 3 * 4096 - 512;

export class ScrubWorld {
  readonly clock = new ManualClock();
  readonly log = recordingLogger();
  readonly devices: FakeDisk[];
  readonly disks: CapturedDisk[];
  readonly tracer: FakeTracer;
  readonly tracking: Tracking;
  readonly knowledge: LeafKnowledge;
  readonly sink: RecordSink;
  readonly questions: LeafQuestion[] = [];
  /** Called wherever the scrub leaves its own code, with how many times it did so far. */
  atCall: (call: number) => void = () => undefined;
  calls = 0;
  #lsn = 1n;
  scrub: Scrub;

  private constructor(devices: FakeDisk[], disks: CapturedDisk[], knowledge: LeafKnowledge) {
    this.devices = devices;
    this.disks = disks;
    this.knowledge = knowledge;
    this.tracer = new FakeTracer(devices);
    this.tracking = new Tracking({ tracer: this.tracer, clock: this.clock, disks });
    this.sink = {
      nextLsn: 1n,
      batchBytes: 256 << 10,
      send: async ({ records }) => knowledge.take(records),
      ask: async (question) => {
        this.questions.push(question);
        this.#call();
        const codes = await knowledge.ask(question);
        this.#call();
        return codes;
      },
    };
    this.scrub = this.newScrub();
    this.#watchCalls();
  }

  static async create(leavesOfDisks: readonly number[] = LEAVES): Promise<ScrubWorld> {
    const devices = leavesOfDisks.map(
      (leaves, index) =>
        new FakeDisk({
          path: `/dev/fake${index}`,
          sizeBytes: Math.max(0, leaves * LEAF_SIZE - CUT),
          devT: index + 1,
        }),
    );
    const disks: CapturedDisk[] = [];
    for (const [index, device] of devices.entries())
      disks.push(new CapturedDisk({ index, device, identity: await device.identity() }));
    const sizes = disks.map(({ index, identity }) => ({ index, sizeBytes: identity.sizeBytes }));
    const knowledge = await LeafKnowledge.open(sizes.filter(({ sizeBytes }) => sizeBytes > 0));
    const world = new ScrubWorld(devices, disks, knowledge);
    // Every other leaf; the others are zero and were never sent.
    for (const device of devices)
      for (let at = 0; at < device.bytes.length; at += 2 * LEAF_SIZE)
        device.write(at, Math.min(LEAF_SIZE, device.bytes.length - at), 1 + at / LEAF_SIZE);
    await world.replicate();
    return world;
  }

  newScrub(progress?: ScrubProgress): Scrub {
    const { tracking, clock, log } = this;
    return new Scrub({
      tracking,
      clock,
      log,
      ...(progress === undefined ? {} : { progress }),
    });
  }

  /** A pass and a barrier, which the vault then has. */
  async replicate(): Promise<void> {
    await this.tracking.absorb();
    await this.running(runPass(this.disks, this));
    this.barrier();
    this.upload();
  }

  barrier(): void {
    this.knowledge.barrier();
    this.#lsn += 1n;
    for (const { dirt } of this.disks) dirt.barrierSent(this.#lsn);
  }

  upload(): void {
    this.knowledge.uploaded();
    for (const { dirt } of this.disks) dirt.barrierUploaded(this.#lsn);
  }

  /** Steps until a pass has ended; waits as it is told to between them. */
  async pass(stepsMax = 40): Promise<ScrubProgress> {
    for (let step = 0; step < stepsMax; step += 1) {
      const ended = await this.step();
      if (ended !== undefined) return ended;
    }
    throw new Error('the pass never ended');
  }

  async step(signal = new AbortController().signal): Promise<ScrubProgress | undefined> {
    const { outcome, ended } = await this.running(this.scrub.step({ sink: this.sink, signal }));
    if (outcome === 'Again') await this.clock.advance(RECHECK_MS);
    return ended;
  }

  /** Time passes until it is done. */
  async running<T>(work: Promise<T>): Promise<T> {
    let over = false;
    const watched = work.finally(() => {
      over = true;
    });
    watched.catch(() => undefined);
    // Without a wait where there is none: most steps need no time at all.
    for (let turn = 0; !over && turn < 100; turn += 1) await Promise.resolve();
    while (!over) await this.clock.advance(5);
    return await watched;
  }

  #call(): void {
    this.atCall(this.calls);
    this.calls += 1;
  }

  #watchCalls(): void {
    const around =
      <A extends unknown[], T>(work: (...args: A) => Promise<T>) =>
      async (...args: A): Promise<T> => {
        this.#call();
        const result = await work(...args);
        this.#call();
        return result;
      };
    for (const device of this.devices) {
      device.read = around(device.read.bind(device));
      device.writtenSectors = around(device.writtenSectors.bind(device));
      device.writesInFlight = around(device.writesInFlight.bind(device));
    }
    this.tracer.drain = around(this.tracer.drain.bind(this.tracer));
    this.clock.sleep = around(this.clock.sleep.bind(this.clock));
  }
}
