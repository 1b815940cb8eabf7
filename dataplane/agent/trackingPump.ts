/** Takes writes from the kernel and saves what is known of them, connected or not, whatever else the agent does. */
import type { Clock } from '../../platform/ports.ts';
import type { Tracking } from '../capture/tracking.ts';
import type { MachineCapture } from './machineCapture.ts';
import type { AgentMemory } from './memory.ts';

const PUMP_MS = 200;
/** Every so many rounds of the pump the tracer and the disks' identities are looked at. */
const VERIFY_ROUNDS = 10;
const SAVE_MS = 10_000;

export interface TrackingPumpDeps {
  clock: Clock;
  capture: MachineCapture;
  memory: AgentMemory;
  /** This tracking is void, or a disk is gone. */
  failed: (error: unknown, tracking: Tracking) => void;
}

/** Runs until the signal aborts; never rejects. */
export async function pumpTracking(deps: TrackingPumpDeps, signal: AbortSignal): Promise<void> {
  const { clock, capture, memory } = deps;
  let savedAtMs = clock.monotonic();
  let taken = 0;
  for (let round = 0; !signal.aborted; round += 1) {
    const { tracking } = capture;
    if (tracking !== undefined && capture.loss === undefined) {
      try {
        await tracking.absorb();
        if (round % VERIFY_ROUNDS === 0) await tracking.verify();
      } catch (error) {
        deps.failed(error, tracking);
      }
    }
    // What was taken from the kernel and not saved costs a resync if we are killed: so as soon as it is quiet, too.
    const before = taken;
    taken = capture.tracking?.eventsTaken ?? 0;
    const quiet = taken === before && taken !== memory.savedEvents;
    if (quiet || clock.monotonic() - savedAtMs >= SAVE_MS) {
      await memory.save();
      savedAtMs = clock.monotonic();
    }
    await clock.sleep(PUMP_MS, signal).catch(() => undefined);
  }
}
