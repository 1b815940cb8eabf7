/** A simulated source machine as conformance suites drive it: time passes while something is waited for, and only then. */
import type { ByteRange, DrivenDisk } from '../conformance/drivenDisk.ts';
import { Chance } from './chance.ts';
import { Kernel } from './kernel.ts';
import { Life } from './life.ts';
import { SourceDisk } from './sourceDisk.ts';
import { SimTime } from './time.ts';

/** Nothing that is waited for takes so long. */
const NEVER_MS = 1e9;

export class DrivenMachine {
  readonly time = new SimTime();
  readonly kernel: Kernel;
  readonly #chance = new Chance(1);

  constructor(options: { diskSizes: readonly number[]; bufferEvents: number }) {
    const disks = options.diskSizes.map(
      (sizeBytes, index) =>
        new SourceDisk({
          path: `/dev/sd${'abc'[index]}`,
          index,
          name: `disk${index}`,
          sizeBytes,
          devT: (8 << 20) | (index * 16),
          chance: this.#chance.fork(),
        }),
    );
    this.kernel = new Kernel({
      time: this.time,
      chance: this.#chance.fork(),
      disks,
      bootId: 'boot',
      bufferEvents: options.bufferEvents,
    });
  }

  life(): Life {
    return new Life(this.time, 'agent');
  }

  disk(index: number): DrivenSourceDisk {
    return new DrivenSourceDisk(this, this.kernel.disks[index] as SourceDisk);
  }

  /** The same, of which every call takes the time that it needs. */
  driven<T extends object>(target: T): T {
    return new Proxy(target, {
      get: (_, name) => {
        const member: unknown = Reflect.get(target, name);
        if (typeof member !== 'function') return member;
        return (...args: unknown[]) => {
          const result: unknown = Reflect.apply(member, target, args);
          return result instanceof Promise ? this.waitFor(result) : result;
        };
      },
    });
  }

  async waitFor<T>(work: Promise<T>): Promise<T> {
    let isOver = false;
    const over = () => {
      isOver = true;
    };
    work.then(over, over);
    await this.until(() => isOver);
    return await work;
  }

  async until(condition: () => boolean): Promise<void> {
    const ms = this.time.nowMs + NEVER_MS;
    if ((await this.time.run({ ms, done: condition })) === 'late')
      throw new Error('waits for ever');
  }

  async pass(ms: number): Promise<void> {
    await this.waitFor(this.life().sleep(ms));
  }
}

export class DrivenSourceDisk implements DrivenDisk {
  readonly disk: SourceDisk;
  readonly #machine: DrivenMachine;

  constructor(machine: DrivenMachine, disk: SourceDisk) {
    this.#machine = machine;
    this.disk = disk;
  }

  get path(): string {
    return this.disk.path;
  }

  async write(range: ByteRange, value: number): Promise<void> {
    await (await this.beginWrite(range, value))();
  }

  async discard({ offset, length }: ByteRange): Promise<void> {
    await this.#begin({ offset, bytes: new Uint8Array(length), kind: 'discard' })();
  }

  async writeZeroes({ offset, length }: ByteRange): Promise<void> {
    await this.#begin({ offset, bytes: new Uint8Array(length), kind: 'other' })();
  }

  async read({ offset, length }: ByteRange): Promise<void> {
    const device = this.#machine.driven(this.disk.openFor(this.#machine.life()));
    await device.read(device.alignedBuffer(length), offset);
  }

  async beginWrite({ offset, length }: ByteRange, value: number): Promise<() => Promise<void>> {
    return this.#begin({ offset, bytes: new Uint8Array(length).fill(value), kind: 'write' });
  }

  #begin(write: Parameters<Kernel['write']>[1]): () => Promise<void> {
    this.#machine.kernel.write(this.disk, write);
    return async () => await this.#machine.until(() => this.disk.inFlight === 0);
  }
}
