/**
 * A machine in memory as capture sees it: a disk, the kernel's counters and trace, filesystems that freeze. Faults are switches.
 * Passes test/conformance/{blockDevice,tracer,filesystemFreezer}.ts.
 */
import { BlockDeviceError, FreezeError, TracingError } from '../../platform/deviceErrors.ts';
import type {
  BlockDevice,
  BlockDeviceIdentity,
  BlockDevices,
  Clock,
  FilesystemFreezer,
  FreezePlan,
  Tracer,
  WriteEvent,
} from '../../platform/ports.ts';

const SECTOR = 512;
const MOUNT_POINT = '/data';

/** The kernel's tracing of a machine. Without a tracer that was started, it is as if one had been, with all disks. */
class FakeTracing {
  /** Numbers of the devices; undefined: all. */
  tracked: ReadonlySet<number> | undefined;
  events: WriteEvent[] = [];
  isOn = true;
  lost = 0;
  eventsMax = Number.POSITIVE_INFINITY;

  note(event: WriteEvent): void {
    if (!this.isOn || this.tracked?.has(event.devT) === false) return;
    if (this.events.length < this.eventsMax) this.events.push(event);
    else this.lost += 1;
  }

  /** Another instance, or none. */
  begin(tracked: ReadonlySet<number>): void {
    this.tracked = tracked;
    this.events = [];
    this.isOn = tracked.size > 0;
    this.lost = 0;
  }

  tracks(wanted: ReadonlySet<number>): boolean {
    return this.isOn && this.tracked !== undefined && keyOf(this.tracked) === keyOf(wanted);
  }
}

function keyOf(numbers: ReadonlySet<number>): string {
  return [...numbers].sort().join();
}

export class FakeDisk implements BlockDevice {
  readonly multiRangeDiscards = false;
  readonly bytes: Uint8Array;
  readonly path: string;
  identityNow: BlockDeviceIdentity;
  counted = 5000;
  discarded = 300;
  /** Of the machine that it is in. */
  tracing = new FakeTracing();
  blind = false;
  /** It was unplugged. */
  isGone = false;
  readError: Error | undefined;
  /** Called before each read of so many bytes; may write. */
  beforeRead: (bytes: number) => void = () => undefined;
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
    const sectorCount = length / SECTOR;
    if (kind === 'discard') this.discarded += sectorCount;
    else this.counted += sectorCount;
    if (this.blind) return;
    const { devT } = this.identityNow;
    this.tracing.note({ devT, sector: offset / SECTOR, sectorCount, kind, counted: true });
  }

  async identity(): Promise<BlockDeviceIdentity> {
    this.#mustBeThere();
    return this.identityNow;
  }

  async read(into: Uint8Array, offset: number): Promise<number> {
    this.beforeRead(into.length);
    this.#mustBeThere();
    if (this.readError !== undefined) throw this.readError;
    if (offset % SECTOR !== 0 || into.length % SECTOR !== 0)
      throw new BlockDeviceError(
        'DiskReadFailed',
        this.path,
        `${into.length} bytes at ${offset} are no whole sectors.`,
      );
    const end = Math.min(offset + into.length, this.identityNow.sizeBytes);
    const part = this.bytes.subarray(offset, Math.max(offset, end));
    into.set(part);
    return part.length;
  }

  alignedBuffer(size: number): Uint8Array {
    return new Uint8Array(size);
  }

  async writtenSectors() {
    this.#mustBeThere();
    return { written: this.counted, discarded: this.discarded };
  }

  async writesInFlight(): Promise<number> {
    this.#mustBeThere();
    return this.#inFlight;
  }

  async close(): Promise<void> {}

  #mustBeThere(): void {
    if (this.isGone)
      throw new BlockDeviceError('DiskVanished', this.path, `${this.path} vanished.`);
  }
}

/** Opens these disks, by their paths. */
export function fakeBlockDevices(disks: readonly FakeDisk[]): BlockDevices {
  return {
    open: async (path) => {
      const disk = disks.find((one) => one.path === path && !one.isGone);
      if (disk === undefined)
        throw new BlockDeviceError('DiskNotFound', path, `${path} can't be found.`);
      return disk;
    },
  };
}

/** Of a machine with these disks. Those of several agents, one after the other, share what the kernel keeps. */
export class FakeTracer implements Tracer {
  problem: string | undefined;
  readonly #tracing: FakeTracing;
  #state: 'fresh' | 'started' | 'stopped' = 'fresh';

  constructor(disks: readonly FakeDisk[]) {
    this.#tracing = disks[0]?.tracing ?? new FakeTracing();
    for (const disk of disks) disk.tracing = this.#tracing;
  }

  /** Events that the kernel dropped. */
  get lost(): number {
    return this.#tracing.lost;
  }

  set lost(events: number) {
    this.#tracing.lost = events;
  }

  /** Events that the kernel keeps until they are taken; it drops what comes then. */
  set eventsMax(events: number) {
    this.#tracing.eventsMax = events;
  }

  /** Somebody turns tracing off. */
  turnOff(): void {
    this.#tracing.isOn = false;
  }

  async start(devices: readonly BlockDeviceIdentity[]): Promise<{ adopted: boolean }> {
    await this.stop();
    this.#state = 'started';
    const wanted = new Set(devices.map(({ devT }) => devT));
    const adopted = this.#tracing.tracks(wanted);
    if (!adopted) this.#tracing.begin(wanted);
    return { adopted };
  }

  async drain(onEvent: (event: WriteEvent) => void): Promise<{ lost: number }> {
    if (this.#state === 'stopped') throw new TracingError('Tracing was not started.');
    for (const event of this.#tracing.events.splice(0)) onEvent(event);
    return { lost: this.lost };
  }

  async intact() {
    const problem = this.problem ?? (this.#tracing.isOn ? undefined : 'tracing is off');
    return problem === undefined ? { intact: true as const } : { intact: false as const, problem };
  }

  async stop(options?: { keep: boolean }): Promise<void> {
    if (this.#state === 'started' && options?.keep !== true) this.#tracing.begin(new Set());
    this.#state = 'stopped';
  }
}

/** Of a machine with one filesystem, on the disk /dev/fake. */
export class FakeFreezer implements FilesystemFreezer {
  readonly calls: string[] = [];
  swap: FreezePlan['swap'] = [];
  raidRecords: NonNullable<FreezePlan['raidRecords']> = [];
  failFreeze = false;
  /** Somebody thaws these as soon as they are frozen. */
  thawedByOthers: string[] = [];
  /** Called when everything is frozen. */
  onFrozen: () => void = () => undefined;
  syncMs = 0;
  /** Writes that the page cache holds. */
  readonly cached: (() => void)[] = [];
  heldMounts: string[] = [];
  readonly #clock: Clock;
  readonly #filesystem: { isFrozen: boolean };
  #froze = false;
  #frozenAtMs = 0;
  #watchdog = new AbortController();

  /** `former`: what an agent before had, of the same machine. */
  constructor(clock: Clock, former?: FakeFreezer) {
    this.#clock = clock;
    this.#filesystem = former === undefined ? { isFrozen: false } : former.#filesystem;
  }

  get frozen(): boolean {
    return this.#filesystem.isFrozen;
  }

  /** As if it had frozen it, for tests that begin there. */
  set frozen(frozen: boolean) {
    this.#filesystem.isFrozen = frozen;
    this.#froze = frozen;
  }

  thawByOther(): void {
    this.#filesystem.isFrozen = false;
  }

  async plan(devicePaths: readonly string[]): Promise<FreezePlan> {
    const source = '/dev/fake';
    const isWanted = ({ devicePath }: { devicePath: string }) => devicePaths.includes(devicePath);
    return {
      mounts: devicePaths.includes(source)
        ? [{ mountPoint: MOUNT_POINT, filesystem: 'ext4', source, freezable: true }]
        : [],
      swap: this.swap.filter(isWanted),
      raidRecords: this.raidRecords.filter(isWanted),
    };
  }

  async sync(): Promise<void> {
    this.calls.push('sync');
    this.#writeBack();
    if (this.syncMs > 0) await this.#clock.sleep(this.syncMs);
  }

  async prepare(): Promise<void> {
    this.calls.push('prepare');
  }

  async freeze(_plan: FreezePlan, options: { deadlineMs: number }): Promise<void> {
    this.calls.push('freeze');
    if (this.failFreeze || this.frozen)
      throw new FreezeError(`The filesystem at ${MOUNT_POINT} is busy.`);
    this.#writeBack();
    this.frozen = true;
    this.#frozenAtMs = this.#clock.monotonic();
    this.#watch(options.deadlineMs);
    this.onFrozen();
    if (this.thawedByOthers.includes(MOUNT_POINT)) this.thawByOther();
  }

  async thaw(): Promise<{ frozenForMs: number; void: string[] }> {
    if (!this.#froze && this.heldMounts.length === 0) return { frozenForMs: 0, void: [] };
    const undone = this.#undone();
    this.#watchdog.abort();
    this.heldMounts = [];
    this.frozen = false;
    this.calls.push('thaw');
    return { frozenForMs: this.#clock.monotonic() - this.#frozenAtMs, void: undone };
  }

  async check(): Promise<{ void: string[] }> {
    return { void: this.#froze ? this.#undone() : [] };
  }

  async hold(): Promise<{ void: string[] }> {
    this.calls.push('hold');
    if (!this.#froze) return { void: [] };
    const undone = this.#undone();
    this.#watchdog.abort();
    this.#froze = false;
    if (undone.length === 0) this.heldMounts = [MOUNT_POINT];
    return { void: undone };
  }

  held(): string[] {
    return [...this.heldMounts];
  }

  adoptHeld(mountPoints: readonly string[]): void {
    this.heldMounts = [...mountPoints];
  }

  #undone(): string[] {
    return this.frozen ? [] : [MOUNT_POINT];
  }

  #watch(deadlineMs: number): void {
    this.#watchdog = new AbortController();
    this.#clock.sleep(deadlineMs, this.#watchdog.signal).then(
      () => this.thawByOther(),
      () => undefined,
    );
  }

  #writeBack(): void {
    for (const write of this.cached.splice(0)) write();
  }
}
