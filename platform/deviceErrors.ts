import { FarshoreError } from './errors.ts';

export type BlockDeviceErrorCode =
  /** Nothing has this name. */
  | 'DiskNotFound'
  /** It was there and is gone: unplugged, or detached by the hypervisor. */
  | 'DiskVanished'
  /** A partition, a mapped or otherwise bio-based device, a zoned disk, no disk at all. */
  | 'DiskUnsupported'
  /** It is smaller than what is protected of it. */
  | 'DiskShrunk'
  /** A read failed. */
  | 'DiskReadFailed';

/** A source machine's disk that can't be used. */
export class BlockDeviceError extends FarshoreError {
  declare readonly code: BlockDeviceErrorCode;
  readonly path: string;

  constructor(code: BlockDeviceErrorCode, path: string, message: string, options?: ErrorOptions) {
    super(code, message, options);
    this.path = path;
  }
}

/** Filesystems could not be frozen; none of them is frozen any more. */
export class FreezeError extends FarshoreError {
  constructor(message: string, options?: ErrorOptions) {
    super('FreezeFailed', message, options);
  }
}

/** The kernel's tracing can't be used at all. */
export class TracingError extends FarshoreError {
  constructor(message: string, options?: ErrorOptions) {
    super('TracingUnavailable', message, options);
  }
}
