/**
 * A machine in memory as capture sees it: a disk, the kernel's counters and trace, filesystems that freeze. Faults are switches.
 */
import { FreezeError } from '../../platform/deviceErrors.ts';
import type {
  BlockDevice,
  BlockDeviceIdentity,
  Clock,
  FilesystemFreezer,
  FreezePlan,
  Tracer,
  WriteEvent,
} from '../../platform/ports.ts';

const SECTOR = 512;

export class FakeDisk implements BlockDevice {
  readonly multiRangeDiscards = false;
  readonly bytes: Uint8Array;
  readonly path: string;
  identityNow: BlockDeviceIdentity;
  counted = 5000;
  /** Events that the tracer has not handed out yet. */
  readonly traced: WriteEvent[] = [];
  blind = false;
  readError: Error | undefined;
  /** Called before each read; may write. */
  beforeRead: () => void = () => undefined;
  #inFlight = 0;

  constructor(options: { path?: string; sizeBytes: number; devT?: number }) {
    this.path = options.path ?? '/dev/fake';
    this.bytes = new Uint8Array(options.sizeBytes);
    this.identityNow = {
      devT: options.devT ?? 1,
      diskSequence: 1n,
      sizeBytes: options.sizeBytes,
    };
  }

  write(offset: number, length: number, value: number, kind: WriteEvent['kind'] = 'write'): void {
    this.bytes.fill(value, offset, offset + length);
    this.#complete(offset, length, kind);
  }

  /** A write that reads see at once; the kernel knows that it is done when the returned function is called. */
  beginWrite(offset: number, length: number, value: number): () => void {
    this.bytes.fill(value, offset, offset + length);
    this.#inFlight += 1;
    return () => {
      this.#inFlight -= 1;
      this.#complete(offset, length, 'write');
    };
  }

  /** Neither traced nor counted. */
  writeUnseen(offset: number, length: number, value: number): void {
    this.bytes.fill(value, offset, offset + length);
  }

  #complete(offset: number, length: number, kind: WriteEvent['kind']): void {
    this.counted += length / SECTOR;
    if (this.blind) return;
    const { devT } = this.identityNow;
    const sector = offset / SECTOR;
    this.traced.push({ devT, sector, sectorCount: length / SECTOR, kind, counted: true });
  }

  async identity(): Promise<BlockDeviceIdentity> {
    return this.identityNow;
  }

  async read(into: Uint8Array, offset: number): Promise<number> {
    this.beforeRead();
    if (this.readError !== undefined) throw this.readError;
    const part = this.bytes.subarray(offset, offset + into.length);
    into.set(part);
    return part.length;
  }

  alignedBuffer(size: number): Uint8Array {
    return new Uint8Array(size);
  }

  async writtenSectors() {
    return { written: this.counted, discarded: 0 };
  }

  async writesInFlight(): Promise<number> {
    return this.#inFlight;
  }

  async close(): Promise<void> {}
}

export class FakeTracer implements Tracer {
  lost = 0;
  problem: string | undefined;
  readonly #disks: readonly FakeDisk[];

  constructor(disks: readonly FakeDisk[]) {
    this.#disks = disks;
  }

  async start() {
    return { adopted: false };
  }

  async drain(onEvent: (event: WriteEvent) => void): Promise<{ lost: number }> {
    for (const disk of this.#disks) for (const event of disk.traced.splice(0)) onEvent(event);
    return { lost: this.lost };
  }

  async intact() {
    return this.problem === undefined
      ? { intact: true as const }
      : { intact: false as const, problem: this.problem };
  }

  async stop(): Promise<void> {}
}

export class FakeFreezer implements FilesystemFreezer {
  readonly calls: string[] = [];
  swap: FreezePlan['swap'] = [];
  raidRecords: NonNullable<FreezePlan['raidRecords']> = [];
  failFreeze = false;
  thawedByOthers: string[] = [];
  frozen = false;
  /** Called when everything is frozen. */
  onFrozen: () => void = () => undefined;
  syncMs = 0;
  readonly #clock: Clock;
  readonly #mountPoint = '/data';

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  async plan(): Promise<FreezePlan> {
    return {
      mounts: [
        { mountPoint: this.#mountPoint, filesystem: 'ext4', source: '/dev/fake', freezable: true },
      ],
      swap: this.swap,
      raidRecords: this.raidRecords,
    };
  }

  async sync(): Promise<void> {
    this.calls.push('sync');
    if (this.syncMs > 0) await this.#clock.sleep(this.syncMs);
  }

  async prepare(): Promise<void> {
    this.calls.push('prepare');
  }

  async freeze(): Promise<void> {
    this.calls.push('freeze');
    if (this.failFreeze) throw new FreezeError('The filesystem at /data is busy.');
    this.frozen = true;
    this.onFrozen();
  }

  async thaw(): Promise<{ frozenForMs: number; void: string[] }> {
    const was = this.frozen;
    this.frozen = false;
    if (was) this.calls.push('thaw');
    return { frozenForMs: was ? 7 : 0, void: was ? this.thawedByOthers : [] };
  }

  async check(): Promise<{ void: string[] }> {
    return { void: this.thawedByOthers };
  }

  async hold(): Promise<{ void: string[] }> {
    this.calls.push('hold');
    return { void: this.thawedByOthers };
  }

  held(): string[] {
    return [];
  }

  adoptHeld(): void {}
}
