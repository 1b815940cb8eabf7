/**
 * What the kernel of a source machine traces of its disks, and keeps until an agent takes it.
 *
 * Fault model. Buffers are per CPU and of fixed size: events past it are dropped and counted as lost. An event may be dropped without being
 * counted, tracing may be turned off behind the agent's back. Buffers are handed out CPU by CPU, not in order of time; they outlive the
 * agent, not a reboot. Passes test/conformance/tracer.ts.
 */
import { TracingError } from '../../platform/deviceErrors.ts';
import type { Tracer, WriteEvent } from '../../platform/ports.ts';
import type { Chance } from './chance.ts';
import { forever, type Life } from './life.ts';

const CPUS = 2;

interface Instance {
  devices: string;
  buffers: WriteEvent[][];
  lost: number;
  on: boolean;
}

export class Trace {
  /** Of each CPU. */
  bufferEvents: number;
  /** Told how many events each drain handed out. */
  onDrain: ((events: number) => void) | undefined;
  /** Writes came, or may have come, that no event tells of. */
  hidWrites = false;
  readonly #chance: Chance;
  #instance: Instance | undefined;

  constructor(options: { chance: Chance; bufferEvents: number }) {
    this.#chance = options.chance;
    this.bufferEvents = options.bufferEvents;
  }

  get isOn(): boolean {
    return this.#instance?.on === true;
  }

  /** A request completed. */
  note(event: WriteEvent): void {
    const instance = this.#instance;
    if (instance?.on !== true) return;
    if (!instance.devices.split(',').includes(String(event.devT))) return;
    const buffer = instance.buffers[this.#chance.below(CPUS)] as WriteEvent[];
    if (buffer.length >= this.bufferEvents) instance.lost += 1;
    else buffer.push(event);
  }

  /** An event that the kernel forgets without a word. Returns whether there was one. */
  dropEvent(): boolean {
    const buffer = this.#instance?.buffers.find((events) => events.length > 0);
    const isHidden = buffer?.shift() !== undefined;
    this.hidWrites ||= isHidden;
    return isHidden;
  }

  turnOff(): boolean {
    if (this.#instance === undefined) return false;
    this.#instance.on = false;
    this.hidWrites = true;
    return true;
  }

  end(): void {
    this.#instance = undefined;
  }

  tracerFor(life: Life): Tracer {
    let isStarted = false;
    return {
      start: async (devices) => {
        if (life.dead) return await forever();
        if (isStarted) this.end();
        isStarted = true;
        const wanted = devices.map((device) => `${device.devT}`).join(',');
        const present = this.#instance;
        if (present?.devices === wanted && present.on) return { adopted: true };
        this.#instance = {
          devices: wanted,
          buffers: Array.from({ length: CPUS }, () => []),
          lost: 0,
          on: true,
        };
        return { adopted: false };
      },
      drain: async (onEvent) => {
        if (life.dead) return await forever();
        const instance = this.#instance;
        if (!isStarted || instance === undefined)
          throw new TracingError('Tracing was not started.');
        let events = 0;
        for (const buffer of instance.buffers)
          for (const event of buffer.splice(0)) {
            events += 1;
            onEvent(event);
          }
        this.onDrain?.(events);
        return { lost: instance.lost };
      },
      intact: async () => {
        if (life.dead) return await forever();
        return this.isOn ? { intact: true } : { intact: false, problem: 'tracing was turned off' };
      },
      stop: async (options) => {
        if (life.dead) return await forever();
        if (isStarted && options?.keep !== true) this.end();
        isStarted = false;
      },
    };
  }
}
