/**
 * The machine's disks while they are protected: opened together, tracked together, and lost together. Keeps tracking over restarts of
 * the agent, and says why it could not.
 */

import { BlockDeviceError } from '../../platform/deviceErrors.ts';
import { errorCode, errorMessage } from '../../platform/errors.ts';
import type { BlockDevice, BlockDevices, Clock, Logger, Tracer } from '../../platform/ports.ts';
import type { ResyncReason } from '../../vault/documents/machineStatus.ts';
import { TrackingLostError } from '../capture/accounting.ts';
import { CapturedDisk } from '../capture/disk.ts';
import { DiskResizedError, Tracking } from '../capture/tracking.ts';
import type { Configuration, FrameType, Message } from '../wire/messages.ts';
import type { SavedDisk } from './state.ts';

export type DiskReport = Message<typeof FrameType.AgentStatus>['disks'][number];
type DiskSpec = Configuration['disks'][number];

const BASELINE_PATIENCE_MS = 3_000;

export interface Loss {
  reason: ResyncReason;
  detail: string;
}

export interface CaptureDeps {
  devices: BlockDevices;
  tracer: Tracer;
  clock: Clock;
  log: Logger;
}

export class MachineCapture {
  readonly #deps: CaptureDeps;
  #specs: readonly DiskSpec[] = [];
  #tracking: Tracking | undefined;
  #errors = new Map<number, { code: string; message: string }>();
  #sizes = new Map<number, number>();
  #problem: { code: string; message: string } | undefined;
  /** Why what was tracked before does not count; undefined: it does. */
  loss: Loss | undefined;

  constructor(deps: CaptureDeps) {
    this.#deps = deps;
  }

  /** undefined: not open, or tracking was lost. */
  get tracking(): Tracking | undefined {
    return this.#tracking;
  }

  get disks(): readonly CapturedDisk[] {
    return this.#tracking?.disks ?? [];
  }

  get errors(): { code: string; message: string }[] {
    const problem = this.#problem === undefined ? [] : [this.#problem];
    return [...problem, ...this.#errors.values()];
  }

  /** The disks to protect. Returns why a resync is needed when they are others than before. */
  configure(specs: readonly DiskSpec[]): { changed: boolean; added: boolean } {
    const key = ({ index, device }: DiskSpec) => `${index} ${device}`;
    const before = new Set(this.#specs.map(key));
    const changed = specs.length !== before.size || specs.some((spec) => !before.has(key(spec)));
    const added = specs.some((spec) => !this.#specs.some(({ index }) => index === spec.index));
    this.#specs = specs;
    return { changed, added };
  }

  reports(): DiskReport[] {
    return this.#specs.map(({ index, device }) => {
      const error = this.#errors.get(index);
      return {
        index,
        device,
        sizeBytes: this.#sizes.get(index) ?? 0,
        ...(error === undefined ? {} : { error }),
      };
    });
  }

  /** Opens the disks and begins to track them. Returns false when one can't be had now; `errors` then says why. */
  async open(): Promise<boolean> {
    await this.close();
    const disks = await this.#openDisks();
    if (disks === undefined) return false;
    try {
      await this.#track(disks);
      const { uncertainSectors } = await this.#tracked().settle({
        patienceMs: BASELINE_PATIENCE_MS,
      });
      if (uncertainSectors > 0)
        this.#deps.log.info(
          { uncertainSectors },
          'The disks are too busy to balance their accounts exactly now; the first freeze will',
        );
      this.#problem = undefined;
      return true;
    } catch (error) {
      this.fail(error);
      await this.close();
      return false;
    }
  }

  /** Goes on where a dead agent of this boot was. Returns false when that can't be proven; `loss` then says why. */
  async resume(saved: readonly SavedDisk[], specs: readonly DiskSpec[]): Promise<boolean> {
    this.#specs = specs;
    if (saved.length === 0 || saved.length !== specs.length) {
      this.loss = { reason: 'TrackingLost', detail: 'the agent was not tracking when it ended' };
      return false;
    }
    const disks = await this.#openDisks(saved);
    try {
      if (disks === undefined) throw new TrackingLostError('a disk is not there any more');
      for (const disk of disks) restore(disk, saved);
      const { adopted } = await this.#track(disks);
      if (!adopted) throw new TrackingLostError("the kernel's tracing ended with the agent");
      await this.#tracked().verify();
      await this.#tracked().absorb();
      return true;
    } catch (error) {
      this.fail(error);
      await this.close();
      return false;
    }
  }

  /** Takes note of what an operation or the pump met. Tracking is over unless it was a read that failed. */
  fail(error: unknown): void {
    if (error instanceof BlockDeviceError) {
      const spec = this.#specs.find(({ device }) => device === error.path);
      if (spec !== undefined)
        this.#errors.set(spec.index, { code: error.code, message: error.message });
      if (error.code === 'DiskReadFailed') return;
      this.loss ??= { reason: 'TrackingLost', detail: error.message };
    } else if (error instanceof DiskResizedError) {
      this.loss = { reason: 'DiskResized', detail: error.message };
    } else {
      if (!(error instanceof TrackingLostError))
        this.#problem = { code: errorCode(error), message: errorMessage(error) };
      this.loss ??= { reason: 'TrackingLost', detail: errorMessage(error) };
    }
  }

  /** A read succeeded again. */
  clearReadErrors(): void {
    for (const [index, { code }] of this.#errors)
      if (code === 'DiskReadFailed') this.#errors.delete(index);
  }

  save(): SavedDisk[] {
    if (this.#tracking === undefined || this.loss !== undefined) return [];
    return this.disks.map((disk) => ({
      index: disk.index,
      device: disk.device.path,
      identity: disk.identity,
      account: disk.account.save(),
      zeroed: [...disk.zeroed],
      raidRecords: [...disk.raidRecords],
      ...disk.dirt.serialise(),
    }));
  }

  /** `keep`: the kernel goes on tracing, for the next agent. */
  async close(options: { keep: boolean } = { keep: false }): Promise<void> {
    const disks = this.disks;
    this.#tracking = undefined;
    await this.#deps.tracer.stop(options);
    for (const disk of disks) await disk.device.close().catch(() => undefined);
  }

  async #track(disks: CapturedDisk[]): Promise<{ adopted: boolean }> {
    const { tracer, clock } = this.#deps;
    this.#tracking = new Tracking({ tracer, clock, disks });
    return await tracer.start(
      disks.map(({ identity, device }) => ({
        ...identity,
        multiRangeDiscards: device.multiRangeDiscards,
      })),
    );
  }

  #tracked(): Tracking {
    if (this.#tracking === undefined) throw new TrackingLostError('tracking has ended');
    return this.#tracking;
  }

  async #openDisks(saved: readonly SavedDisk[] = []): Promise<CapturedDisk[] | undefined> {
    const disks: CapturedDisk[] = [];
    this.#errors = new Map();
    for (const { index, device: path, sizeBytes: known = 0 } of this.#specs) {
      let device: BlockDevice | undefined;
      try {
        device = await this.#deps.devices.open(path);
        const identity = await device.identity();
        if (identity.sizeBytes < known) throw shrunk(path, { now: identity.sizeBytes, known });
        this.#sizes.set(index, identity.sizeBytes);
        const before = saved.find((disk) => disk.index === index);
        disks.push(
          new CapturedDisk({
            index,
            device,
            identity,
            ...(before === undefined
              ? {}
              : {
                  account: { low: undefined, high: undefined, ...before.account },
                  zeroed: before.zeroed ?? [],
                  raidRecords: before.raidRecords ?? [],
                }),
          }),
        );
      } catch (error) {
        await device?.close();
        if (!(error instanceof BlockDeviceError)) throw error;
        this.#errors.set(index, { code: error.code, message: error.message });
      }
    }
    if (disks.length === this.#specs.length) return disks;
    for (const disk of disks) await disk.device.close();
    return undefined;
  }
}

/** What was cut off may have been data, and a replica can't lose it: recovery points before and after would be of different disks. */
function shrunk(path: string, sizes: { now: number; known: number }): BlockDeviceError {
  return new BlockDeviceError(
    'DiskShrunk',
    path,
    `${path} has ${sizes.now} bytes; ${sizes.known} are protected. A disk that was shrunk is not protected on. Give it its size back, or, when it is meant to be smaller, take it off spec.disks of the ProtectedVM and add it under another name: it is then copied anew, and the recovery points of before stay.`,
  );
}

function restore(disk: CapturedDisk, saved: readonly SavedDisk[]): void {
  const before = saved.find(({ index }) => index === disk.index);
  const { devT, diskSequence, sizeBytes } = disk.identity;
  if (
    before === undefined ||
    before.device !== disk.device.path ||
    before.identity.devT !== devT ||
    before.identity.diskSequence !== diskSequence
  )
    throw new TrackingLostError(`${disk.device.path} is another disk than it was before`);
  if (before.identity.sizeBytes !== sizeBytes)
    throw new DiskResizedError(
      new CapturedDisk({ index: disk.index, device: disk.device, identity: before.identity }),
      sizeBytes,
    );
  // Within what the account leaves open, events that the former agent took in after it saved could be missing and not show.
  const { low, high } = before.account;
  if (low === undefined || low !== high)
    throw new TrackingLostError(
      `the former agent ended before it could balance the account of ${disk.device.path}, which was too busy`,
    );
  disk.dirt.restore(before);
}
