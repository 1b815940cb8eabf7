/**
 * Passes between barriers: when one is due, and how it shares the machine with its programs.
 *
 * They spread what a barrier will need over the time before it. A leaf that was sent and then written again waits for the barrier:
 * a machine that writes the same blocks over and over has them read and sent once for it, not all the time. Where most of what passes
 * sent was written again, even that once was in vain: passes send samples alone then, until those stay as they were.
 */
import type { Clock, SourceMachine } from '../../platform/ports.ts';
import { runPass } from '../capture/pass.ts';
import type { RecordSink } from '../capture/sink.ts';
import type { Tracking } from '../capture/tracking.ts';
import { BLOCK_SIZE } from '../journal/record.ts';
import type { MachineCapture } from './machineCapture.ts';

const PASS_BYTES = 16 << 20;
const PASS_MS = 15_000;
/**
 * The disks are left alone for so many times what a pass took: a machine that writes all the time would be read all the time, sixteen
 * blocks for each that it wrote, and what it writes again meanwhile is read and sent once. A barrier waits for no rest.
 */
const REST_FACTOR = 3;
const REST_MAX_MS = PASS_MS;
/** Of what was sent since the last barrier, so much has to be sent with it once more. */
const IN_VAIN_SHARE = 0.5;
/** Of each disk. */
const SAMPLE_BYTES = 16 << 20;
/** Less of it tells nothing. */
const TELLING_BLOCKS = (4 << 20) / BLOCK_SIZE;

export interface PassWorkDeps {
  clock: Clock;
  machine: Pick<SourceMachine, 'giveWay'>;
  capture: Pick<MachineCapture, 'disks' | 'clearReadErrors'>;
}

export class PassWork {
  readonly #deps: PassWorkDeps;
  #endedMs = 0;
  #restMs = 0;
  #running = false;
  #isInVain = false;

  constructor(deps: PassWorkDeps) {
    this.#deps = deps;
  }

  isDue({ dirtyBytes }: Pick<Tracking, 'dirtyBytes'>): boolean {
    if (dirtyBytes === 0) return false;
    const sinceMs = this.#deps.clock.monotonic() - this.#endedMs;
    return sinceMs >= PASS_MS || (dirtyBytes >= PASS_BYTES && sinceMs >= this.#restMs);
  }

  /** Rejects as `runPass` does. */
  async run(sink: RecordSink): Promise<void> {
    const { clock, machine, capture } = this.#deps;
    const begunMs = clock.monotonic();
    this.#judge();
    machine.giveWay(true);
    this.#running = true;
    let foundLittle = false;
    try {
      const deps = { sink, clock, unsentOnly: true, gently: () => this.#running };
      const { bytesSent } = await runPass(
        capture.disks,
        this.#isInVain ? { ...deps, sampleBytes: SAMPLE_BYTES } : deps,
      );
      foundLittle = this.#isInVain || bytesSent < PASS_BYTES;
    } finally {
      this.hurry();
    }
    this.#endedMs = clock.monotonic();
    const restMs = REST_FACTOR * (this.#endedMs - begunMs);
    this.#restMs = foundLittle ? REST_MAX_MS : Math.min(REST_MAX_MS, restMs);
    capture.clearReadErrors();
  }

  /** Somebody waits for what comes behind the pass. */
  hurry(): void {
    if (!this.#running) return;
    this.#running = false;
    this.#deps.machine.giveWay(false);
  }

  /** What was sent since the last barrier is as old as it gets. */
  barrierBegins(): void {
    this.#judge();
  }

  /** All that was dirty went with a barrier. */
  barrierMade(): void {
    this.#endedMs = this.#deps.clock.monotonic();
    this.#restMs = 0;
  }

  /** Whether what passes sent was in vain, as far as that shows by now; where too little was sent to tell, it stays as it was. */
  #judge(): void {
    let blocks = 0;
    let again = 0;
    for (const { dirt } of this.#deps.capture.disks) {
      const early = dirt.sentEarly;
      blocks += early.blocks;
      again += early.again;
    }
    if (blocks >= TELLING_BLOCKS) this.#isInVain = again >= blocks * IN_VAIN_SHARE;
  }
}
