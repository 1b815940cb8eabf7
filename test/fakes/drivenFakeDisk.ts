import type { ByteRange, DrivenDisk } from '../conformance/drivenDisk.ts';
import type { FakeDisk } from './sourceMachine.ts';

/** A FakeDisk as conformance suites drive it. */
export class DrivenFakeDisk implements DrivenDisk {
  readonly device: FakeDisk;

  constructor(device: FakeDisk) {
    this.device = device;
  }

  get path(): string {
    return this.device.path;
  }

  async write({ offset, length }: ByteRange, value: number): Promise<void> {
    this.device.write(offset, length, value);
  }

  async discard({ offset, length }: ByteRange): Promise<void> {
    this.device.write(offset, length, 0, 'discard');
  }

  async writeZeroes({ offset, length }: ByteRange): Promise<void> {
    this.device.write(offset, length, 0, 'other');
  }

  async read({ offset, length }: ByteRange): Promise<void> {
    await this.device.read(this.device.alignedBuffer(length), offset);
  }

  async beginWrite({ offset, length }: ByteRange, value: number): Promise<() => Promise<void>> {
    const complete = this.device.beginWrite(offset, length, value);
    return async () => complete();
  }
}
