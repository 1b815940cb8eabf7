/**
 * Passes between barriers: when one is due, and how it shares the machine with its programs.
 *
 * They spread what a barrier will need over the time before it. A leaf that was sent and then written again waits for the barrier:
 * a machine that writes the same blocks over and over has them read and sent once for it, not all the time.
 */
import type { Clock, SourceMachine } from '../../platform/ports.ts';
import { runPass } from '../capture/pass.ts';
import type { RecordSink } from '../capture/sink.ts';
import type { Tracking } from '../capture/tracking.ts';
import type { MachineCapture } from './machineCapture.ts';

const PASS_BYTES = 16 << 20;
const PASS_MS = 15_000;
/**
 * The disks are left alone for so many times what a pass took: a machine that writes all the time would be read all the time, sixteen
 * blocks for each that it wrote, and what it writes again meanwhile is read and sent once. A barrier waits for no rest.
 */
const REST_FACTOR = 3;
const REST_MAX_MS = PASS_MS;

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
    machine.giveWay(true);
    this.#running = true;
    let foundLittle = false;
    try {
      const { bytesSent } = await runPass(capture.disks, { sink, clock, unsentOnly: true });
      foundLittle = bytesSent < PASS_BYTES;
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

  /** All that was dirty went with a barrier. */
  barrierMade(): void {
    this.#endedMs = this.#deps.clock.monotonic();
    this.#restMs = 0;
  }
}
