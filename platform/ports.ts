/**
 * Everything that Farshore's own code may ask of the world outside it.
 *
 * Code under `dataplane/`, `vault/`, `recovery/` and `controllers/` sees time, randomness, files, devices, the network and the
 * cloud through these interfaces alone; adapters live in `platform/{node,linux,azure,kube}` and are constructed only by `main.ts`
 * files. Fakes for tests live under `test/fakes/` and pass the same conformance suites as the adapters.
 *
 * Sizes and offsets are bytes, held as `number` (safe up to 8 PiB; a disk is at most 32 TiB). Times are milliseconds.
 */

// ---------------------------------------------------------------------------------------------------------------- time, chance

export interface Clock {
  /** Wall clock, ms since the Unix epoch. May jump. */
  now(): number;
  /** Monotonic ms since an arbitrary moment. Never goes back. */
  monotonic(): number;
  /** Resolves after `ms`; rejects with the signal's reason when it aborts first. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}

export interface Random {
  bytes(count: number): Uint8Array;
}

/** What every part logs through; pino satisfies it. Errors are logged once, where they are handled. */
export interface Logger {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
  child(fields: object): Logger;
}

// ---------------------------------------------------------------------------------------------------------------------- files

/** A directory tree of our own: the process server's cache. Paths are relative to its root and use `/`. */
export interface Disk {
  open(path: string, mode: 'read' | 'readWrite' | 'createExclusive' | 'create'): Promise<DiskFile>;
  /** Names in a directory, unsorted; empty when the directory does not exist. */
  list(directory: string): Promise<string[]>;
  makeDirectory(path: string): Promise<void>;
  rename(names: { from: string; to: string }): Promise<void>;
  /** Succeeds when the file does not exist. */
  remove(path: string): Promise<void>;
  /** Makes renames, creations and removals in the directory durable. */
  syncDirectory(path: string): Promise<void>;
  freeBytes(): Promise<number>;
  totalBytes(): Promise<number>;
}

export interface DiskFile {
  /** Reads until `into` is full or the file ends; returns the bytes read. */
  read(into: Uint8Array, offset: number): Promise<number>;
  /** Writes all of `bytes`. Not durable before `sync`. */
  write(bytes: Uint8Array, offset: number): Promise<void>;
  /** fdatasync. When it fails, nothing written since the last success may be trusted: close and recover. */
  sync(): Promise<void>;
  truncate(size: number): Promise<void>;
  size(): Promise<number>;
  close(): Promise<void>;
}

// ------------------------------------------------------------------------------------------------------ a source machine's disks

/** What must not change under a tracked disk (design §5). */
export interface BlockDeviceIdentity {
  /** major << 20 | minor, as the kernel's trace events carry it. */
  devT: number;
  /** Raised by the kernel whenever the medium behind the name changes. */
  diskSequence: bigint;
  sizeBytes: number;
}

export interface BlockDevice {
  readonly path: string;
  /** The driver takes discards of several ranges, whose completion the kernel reports wrongly (design §5). */
  readonly multiRangeDiscards: boolean;
  /** Rejects with BlockDeviceError `DiskVanished` when the device is gone. */
  identity(): Promise<BlockDeviceIdentity>;
  /**
   * Direct read past the page cache. `offset` and `into.length` are multiples of the logical sector; `into` comes from
   * `alignedBuffer`. Returns the bytes read (less than asked only at the end of the device).
   */
  read(into: Uint8Array, offset: number): Promise<number>;
  /** Page-aligned memory that direct I/O accepts. */
  alignedBuffer(size: number): Uint8Array;
  /** The kernel's own count since boot, in sectors (512 B), which the tracer must account for. */
  writtenSectors(): Promise<{ written: number; discarded: number }>;
  /** Writes and discards that the driver has taken and not completed: a read may see them, the tracer has not. */
  writesInFlight(): Promise<number>;
  close(): Promise<void>;
}

export interface BlockDevices {
  /** Rejects with BlockDeviceError: the disk is missing, or can't be protected (the message says what to protect instead). */
  open(path: string): Promise<BlockDevice>;
}

/** A write, discard or write-zeroes that the kernel completed on a tracked device. Sectors are 512 bytes. */
export interface WriteEvent {
  devT: number;
  sector: number;
  sectorCount: number;
  kind: 'write' | 'discard' | 'other';
  /** False: an echo of an event that was counted already (a discard that has to be read again). */
  counted: boolean;
}

export interface Tracer {
  /**
   * Starts tracking the devices, and those alone. A tracing instance of the same name left by a dead agent is adopted with what
   * its buffer still holds when it tracked the same devices; else it is made anew.
   */
  start(
    devices: readonly (BlockDeviceIdentity & { multiRangeDiscards: boolean })[],
  ): Promise<{ adopted: boolean }>;
  /**
   * Every event completed before the call. `onEvent` runs synchronously for each. `lost` > 0 means the kernel dropped events
   * and tracking is void. `last`: nothing is taken from the kernel any more, so that an agent that comes back finds the rest.
   */
  drain(
    onEvent: (event: WriteEvent) => void,
    options?: { last?: boolean },
  ): Promise<{ lost: number }>;
  /** Proof that nobody turned tracking off or changed its filter behind our back; else says what changed. */
  intact(): Promise<{ intact: true } | { intact: false; problem: string }>;
  /** `keep`: the kernel goes on tracing into its buffer, for an agent that comes back soon. */
  stop(options?: { keep: boolean }): Promise<void>;
}

/** Filesystems that hold a machine's disks, in the order in which they must be frozen (top of a stack first). */
export interface FilesystemFreezer {
  /** The mounted filesystems that lie on the given disks, top first; swap areas and what can't be frozen are named. */
  plan(devicePaths: readonly string[]): Promise<FreezePlan>;
  /** Writes back what the page cache holds for them. */
  sync(plan: FreezePlan): Promise<void>;
  /** Starts the watchdogs, so that nothing has to be started once the first filesystem is frozen. */
  prepare(plan: FreezePlan): Promise<void>;
  /**
   * Freezes all; a watchdog process of its own thaws them when this process dies or `deadlineMs` passes. Rejects (all thawed
   * again) with FreezeError when one can't be frozen.
   */
  freeze(plan: FreezePlan, options: { deadlineMs: number }): Promise<void>;
  /**
   * Thaws all, and ends the watchdogs. `void` names filesystems that were thawed by someone else or by the watchdog: what was
   * read since the freeze proves nothing. Safe to call when nothing is frozen.
   */
  thaw(plan: FreezePlan): Promise<{ frozenForMs: number; void: string[] }>;
  /** `void` as above, with everything left as it is: whether what was read so far was read from frozen filesystems. */
  check(plan: FreezePlan): Promise<{ void: string[] }>;
  /** Calls the watchdogs off: what is frozen stays so, also when this process ends. `void` as above: those thawed before. */
  hold(plan: FreezePlan): Promise<{ void: string[] }>;
  /** What is held frozen now: for an agent that comes back to `adoptHeld`, after which `thaw` thaws it. */
  held(): string[];
  adoptHeld(mountPoints: readonly string[]): void;
}

export interface FreezePlan {
  mounts: readonly { mountPoint: string; filesystem: string; source: string; freezable: boolean }[];
  /** Swap areas: whole disks or partitions, and swap files resolved to extents. Only the first page (the header) is kept. */
  swap: readonly {
    devicePath: string;
    offset: number;
    length: number;
    kind: 'partition' | 'file';
    /** This extent starts with the area's header page. */
    header: boolean;
  }[];
  /** Where software RAIDs keep their own records (superblock, bitmap): the kernel may write there while all is frozen. */
  raidRecords?: readonly { devicePath: string; offset: number; length: number }[];
}

/** The machine that an agent runs in. */
export interface SourceMachine {
  facts(): Promise<{ hostname: string; kernel: string; bootId: string }>;
  /** Whole disks that could be protected; offered, never assumed. */
  disks(): Promise<{ device: string; sizeBytes: number; description: string }[]>;
  /** Turns the machine off at once, with its filesystems frozen. */
  powerOff(): Promise<void>;
  /** While on, our own work leaves the processors to the machine's programs whenever they want them. Not what follows its writes. */
  giveWay(on: boolean): void;
}

/** Programs of the machine's owner that bring applications to rest before a freeze (`pre`) and let them go on (`post`). */
export interface HookRunner {
  /** Runs every executable of the directory in name order; `pre` stops at the first failure. A missing directory is a failure. */
  run(options: {
    directory: string;
    phase: 'pre' | 'post';
    timeoutMs: number;
  }): Promise<{ failures: { hook: string; reason: string }[] }>;
}

// ---------------------------------------------------------------------------------------------------------------- the network

/** Who is at the other end of a channel. Only `Verified` proves anything: the certificate chains to the CA that we gave. */
export interface ChannelPeer {
  /** For logs and rate limits; proves nothing. */
  address: string;
  certificate:
    | { state: 'None' }
    /** `identities` are the URI names in the certificate, such as those of vault/identity.ts. */
    | { state: 'Verified'; identities: readonly string[] }
    | { state: 'Refused'; reason: string };
}

/** A reliable, ordered, two-way stream of bytes with one peer: TLS in production. Failures are ChannelError with a stable code. */
export interface Channel {
  readonly peer: ChannelPeer;
  /**
   * Hands the parts on in order, behind those of earlier calls. Resolves when there is room for more: that is the backpressure.
   * The parts must not change until then. Rejects once the channel is closed or broken.
   */
  write(parts: readonly Uint8Array[]): Promise<void>;
  /**
   * The next bytes as they arrived (never empty); `undefined` after the peer's end, after which nothing can be written either. The
   * end of a peer that died with all read looks like an orderly one: what must be whole has to say so itself. One call at a time.
   * Nothing more is taken from the network than is asked for here (and a bounded buffer). Rejects when the channel broke or was
   * closed by us.
   */
  read(): Promise<Uint8Array | undefined>;
  /** What was written before still goes out when the peer reads it within a few seconds. Safe to call again. */
  close(): Promise<void>;
  /** Drops the connection at once with whatever it still held. Pending calls reject. Safe to call again. */
  destroy(): void;
}

/** Where channels come from at the side that listens. */
export interface ChannelListener {
  readonly port: number;
  /** From now on, new channels are handed this certificate (PEM). */
  replaceCertificate(credentials: { cert: string; key: string; ca: string }): void;
  /** Refuses new channels; open ones stay. */
  close(): Promise<void>;
}

// ------------------------------------------------------------------------------------------------------------ blobs: the vault

export interface ObjectInfo {
  key: string;
  size: number;
  etag: string;
  lastModified: number;
}

export interface StoredObject extends ObjectInfo {
  body: Uint8Array;
}

/** A body too large to hold: read again from the start on every try. */
export interface ObjectSource {
  size: number;
  open(): NodeJS.ReadableStream;
}

/** Block blobs under one container (or a prefix of one). Keys use `/`. Every failure is a StoreError with a stable code. */
export interface ObjectStore {
  /** `undefined` when it does not exist. */
  get(
    key: string,
    options?: { offset?: number; length?: number; signal?: AbortSignal },
  ): Promise<StoredObject | undefined>;
  head(key: string): Promise<ObjectInfo | undefined>;
  /** One atomic Put with If-None-Match:*. `exists` says that somebody's object, perhaps ours of an unanswered try, is there. */
  putIfAbsent(
    key: string,
    body: Uint8Array | ObjectSource,
    options?: { signal?: AbortSignal },
  ): Promise<{ outcome: 'created'; etag: string } | { outcome: 'exists' }>;
  /** Replaces the version with this ETag, atomically. A conflict with our own try, whose answer was lost, is told as replaced. */
  replace(
    key: string,
    body: Uint8Array,
    condition: { etag: string },
  ): Promise<{ outcome: 'replaced'; etag: string } | { outcome: 'conflict' }>;
  /** Unconditional; only for documents with a single writer whose loss harms nobody (status). */
  put(key: string, body: Uint8Array): Promise<{ etag: string }>;
  /** In key order. */
  list(prefix: string, options?: { startAfter?: string }): AsyncIterable<ObjectInfo>;
  /** `missing` when there was nothing; `conflict` when the ETag did not match. */
  remove(key: string, condition?: { etag: string }): Promise<'removed' | 'missing' | 'conflict'>;
  /** The store's own clock, from a response's Date, against which barrier times are reported. */
  serverTime(): Promise<number>;
}

/** Conditions of a fenced write to a page blob: both must hold (reference: Azure's sequence-number and lease rules). */
export interface PageFence {
  leaseId: string;
  sequenceNumber: number;
}

export interface PageBlobInfo {
  size: number;
  sequenceNumber: number;
  etag: string;
  metadata: Record<string, string>;
  /** Somebody holds a lease that has not run out: the holder is alive. Of a snapshot always false. */
  leased: boolean;
}

export interface PageRange {
  offset: number;
  length: number;
}

/**
 * Page blobs under the same container: replicas and their hash tables. Offsets and lengths are multiples of 512. Metadata names are
 * lower-case letters, digits and `_`.
 */
export interface PageBlobStore {
  create(
    key: string,
    options: { size: number; sequenceNumber: number; metadata?: Record<string, string> },
  ): Promise<'created' | 'exists'>;
  info(key: string, options?: { snapshot?: string }): Promise<PageBlobInfo | undefined>;
  resize(key: string, size: number, fence: PageFence): Promise<void>;
  /** Breaks whatever lease there is, acquires one and raises the sequence number, so that delayed writes of the former holder fail. */
  fence(key: string, options: { sequenceNumber: number; leaseSeconds: number }): Promise<PageFence>;
  renew(key: string, fence: PageFence): Promise<void>;
  release(key: string, fence: PageFence): Promise<void>;
  /**
   * At most 4 MiB. A write or clear that rejects with VaultUnreachable may still land, later and out of order: fence again with a
   * higher sequence number before going on. It is never sent twice behind the caller's back.
   */
  write(key: string, bytes: Uint8Array, offset: number, fence: PageFence): Promise<void>;
  clear(key: string, range: PageRange, fence: PageFence): Promise<void>;
  read(key: string, range: PageRange, options?: { snapshot?: string }): Promise<Uint8Array>;
  /** Ranges that may hold data, in order; everything between them is zero. */
  ranges(key: string, options?: { snapshot?: string }): AsyncIterable<PageRange>;
  snapshot(
    key: string,
    options: { fence: PageFence; metadata: Record<string, string> },
  ): Promise<{ snapshot: string }>;
  snapshots(key: string): AsyncIterable<{ snapshot: string; metadata: Record<string, string> }>;
  removeSnapshot(key: string, snapshot: string): Promise<void>;
  /** Starts a server-side copy to a fresh name; `exists` when the name is taken. Poll `copyState`. */
  startCopy(names: { from: string; snapshot: string; to: string }): Promise<'started' | 'exists'>;
  copyState(
    key: string,
  ): Promise<
    | { state: 'success' }
    | { state: 'pending'; copied: number; total: number }
    | { state: 'failed'; reason: string }
    | { state: 'missing' }
  >;
  /** Removes the blob and its snapshots. Succeeds when it does not exist. */
  remove(key: string): Promise<void>;
  /** The URL by which Azure Resource Manager reads the blob for an import (no credential inside). */
  url(key: string): string;
}

// ---------------------------------------------------------------------------------------------------- Azure Resource Manager

export interface AzureResourceRef {
  resourceGroup: string;
  name: string;
}

export interface ManagedDisk {
  id: string;
  state: 'Unattached' | 'Attached' | 'ActiveSAS' | 'Other';
  provisioning: 'Succeeded' | 'Failed' | 'InProgress';
  sizeBytes: number;
  tags: Record<string, string>;
}

export interface NetworkInterface {
  id: string;
  provisioning: 'Succeeded' | 'Failed' | 'InProgress';
  privateIp: string | undefined;
  tags: Record<string, string>;
}

export interface VirtualMachine {
  id: string;
  provisioning: 'Succeeded' | 'Failed' | 'InProgress';
  power: 'running' | 'starting' | 'stopped' | 'deallocated' | 'unknown';
  tags: Record<string, string>;
}

export interface VmSize {
  name: string;
  cores: number;
  memoryBytes: number;
  maxDataDisks: number;
  maxNics: number;
  premiumDisks: boolean;
  /** How its machines boot: V1 by BIOS, V2 by UEFI. */
  generations: ('V1' | 'V2')[];
  /** In which this subscription may use it, sorted; none where the region has none. */
  zones: string[];
}

export type DiskType =
  | 'Standard_LRS'
  | 'StandardSSD_LRS'
  | 'Premium_LRS'
  | 'StandardSSD_ZRS'
  | 'Premium_ZRS';

/**
 * The few things Farshore does in Azure. Each is idempotent: a create of what exists with the same `farshore-failover` tag answers
 * what exists, as it is (with another it is a Conflict), and a removal of what is gone is no error. `disk`, `nic` and `vm` answer
 * `undefined` for 404. Waiting for a long-running operation is part of the call; errors are ComputeError.
 */
export interface Compute {
  resourceGroupExists(name: string): Promise<boolean>;
  subnet(options: {
    resourceGroup: string;
    network: string;
    subnet: string;
  }): Promise<{ id: string; location: string } | undefined>;
  vmSizes(location: string): Promise<VmSize[]>;

  disk(ref: AzureResourceRef): Promise<ManagedDisk | undefined>;
  importDisk(
    ref: AzureResourceRef,
    options: {
      location: string;
      sourceUrl: string;
      storageAccountId: string;
      type: DiskType;
      zone?: string;
      os?: { type: 'Linux' | 'Windows'; generation: 'V1' | 'V2' };
      tags: Record<string, string>;
    },
  ): Promise<ManagedDisk>;
  /** A read-only URL of an unattached disk's content as a VHD; revoke it before the disk is attached or removed. */
  grantDiskRead(ref: AzureResourceRef, options: { seconds: number }): Promise<{ url: string }>;
  revokeDiskRead(ref: AzureResourceRef): Promise<void>;
  removeDisk(ref: AzureResourceRef): Promise<void>;

  nic(ref: AzureResourceRef): Promise<NetworkInterface | undefined>;
  createNic(
    ref: AzureResourceRef,
    options: {
      location: string;
      subnetId: string;
      privateIp?: string;
      tags: Record<string, string>;
    },
  ): Promise<NetworkInterface>;
  removeNic(ref: AzureResourceRef): Promise<void>;

  vm(ref: AzureResourceRef): Promise<VirtualMachine | undefined>;
  createVm(
    ref: AzureResourceRef,
    options: {
      location: string;
      size: string;
      zone?: string;
      osDiskId: string;
      osType: 'Linux' | 'Windows';
      dataDisks: readonly { lun: number; id: string }[];
      nicIds: readonly string[];
      tags: Record<string, string>;
    },
  ): Promise<VirtualMachine>;
  removeVm(ref: AzureResourceRef): Promise<void>;
  /** What the machine wrote to its serial port since it was created; empty when it is not known yet. */
  serialLog(ref: AzureResourceRef): Promise<string>;
}

/** Reads a disk by the URL that `grantDiskRead` gave. */
export interface DiskImageReader {
  size(url: string): Promise<number>;
  ranges(url: string): AsyncIterable<PageRange>;
  read(url: string, range: PageRange): Promise<Uint8Array>;
}
