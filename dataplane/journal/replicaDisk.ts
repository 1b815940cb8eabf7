/**
 * One disk of a replica: its fixed VHD and the table of its leaf hashes, both page blobs under the machine's fence.
 *
 * A disk whose size is not known (no barrier yet, nothing in the catalog), or which grows during a resync, has provisional room and no
 * footer: `sizeBytes` is 0 until a barrier or the catalog says it. Everything here may be repeated after a crash and then ends the same.
 */
import type { PageBlobStore } from '../../platform/ports.ts';
import { isStoreError, PAGE_BLOB_MAX } from '../../platform/storeErrors.ts';
import { vaultLayout } from '../../vault/layout.ts';
import { WHOLE_LEAF } from './batchCheck.ts';
import { CHUNK_LEAVES, DiskTree, ZERO_LEAF_HASH } from './merkle.ts';
import { BLOCK_SIZE, BLOCKS_PER_LEAF, HASH_SIZE, LEAF_SIZE } from './record.ts';
import { ReplicaDamaged } from './replicaErrors.ts';
import type { ReplicaFence } from './replicaFence.ts';
import { type LeafChunkCache, LeafTable } from './replicaLeaves.ts';
import { joinBlocks, type PageChange, type PendingDisk } from './replicaWrites.ts';
import { encodeVhdFooter, VHD_FOOTER_SIZE, vhdBodySize, vhdUniqueId } from './vhd.ts';

/** Provisional room grows by doubling from here. */
const ROOM_MIN = 2 ** 30;
/** The largest body: a page blob's limit less the footer, in whole MiB. */
export const REPLICA_BODY_MAX = PAGE_BLOB_MAX - 2 ** 20;

export interface ReplicaDiskDeps {
  pages: PageBlobStore;
  fence: ReplicaFence;
  leafCache: LeafChunkCache;
}

export class ReplicaDisk {
  readonly #deps: ReplicaDiskDeps;
  readonly #machineId: string;
  readonly index: number;
  readonly name: string;
  readonly key: string;
  readonly leavesKey: string;
  #sizeBytes: number;
  /** Bytes of the body that the blobs have room for. */
  #room: number;
  #leaves: LeafTable;
  /** Over the leaf table. Undefined until the first root is asked for, and while the size is unknown. */
  #tree: DiskTree | undefined;

  private constructor(
    deps: ReplicaDiskDeps,
    options: DiskIdentity & { sizeBytes: number; room: number; fresh: boolean },
  ) {
    this.#deps = deps;
    this.#machineId = options.machineId;
    this.index = options.index;
    this.name = options.name;
    this.key = vaultLayout.replica(options.machineId, options.name);
    this.leavesKey = vaultLayout.replicaLeaves(options.machineId, options.name);
    this.#sizeBytes = options.sizeBytes;
    this.#room = options.room;
    this.#leaves = this.#table(options.fresh);
  }

  /** A disk that state.json lists: its blobs must be there. Fences them. */
  static async open(
    deps: ReplicaDiskDeps,
    options: DiskIdentity & { sizeBytes: number },
  ): Promise<ReplicaDisk> {
    const { machineId, name, sizeBytes } = options;
    const keys = [
      vaultLayout.replica(machineId, name),
      vaultLayout.replicaLeaves(machineId, name),
    ] as const;
    try {
      await deps.fence.fenceBlobs(keys);
    } catch (cause) {
      if (!isStoreError(cause, 'StoreObjectMissing')) throw cause;
      throw new ReplicaDamaged(
        machineId,
        `a page blob of disk ${name} is gone. Restore ${keys.join(' and ')} from soft delete, or remove replicas/${machineId}/ and points/${machineId}/ to have the replica built anew from the journal.`,
        { cause },
      );
    }
    const [vhd, leaves] = await Promise.all(
      keys.map(async (key) => (await deps.pages.info(key))?.size ?? 0),
    );
    const room = Math.floor((vhd ?? 0) / LEAF_SIZE) * LEAF_SIZE;
    const disk = new ReplicaDisk(deps, { ...options, room, fresh: false });
    const expected = disk.#blobSizes(sizeBytes > 0 ? vhdBodySize(sizeBytes) : room);
    // A resize that state.json never learned of is undone, or finished when no size is known: its round is replayed.
    if (vhd !== expected.vhd || leaves !== expected.leaves) {
      await disk.#resize(expected.room);
      disk.#sizeBytes = 0;
      if (sizeBytes > 0) await disk.setSize(sizeBytes);
    }
    return disk;
  }

  /** A disk that appears: makes what is missing, and empties what a former try left. `sizeBytes` is 0 when it is not known. */
  static async create(
    deps: ReplicaDiskDeps,
    options: DiskIdentity & { sizeBytes: number },
  ): Promise<ReplicaDisk> {
    const room = options.sizeBytes > 0 ? vhdBodySize(options.sizeBytes) : ROOM_MIN;
    checkRoom(options, room);
    const disk = new ReplicaDisk(deps, { ...options, sizeBytes: 0, room, fresh: true });
    const sizes = disk.#blobSizes(room);
    for (const [key, size] of [
      [disk.key, sizes.vhd],
      [disk.leavesKey, sizes.leaves],
    ] as const) {
      const sequenceNumber = deps.fence.state.fence;
      const outcome = await deps.pages.create(key, { size, sequenceNumber });
      await deps.fence.fenceBlobs([key]);
      if (outcome === 'created') continue;
      const fence = deps.fence.of(key);
      const found = (await deps.pages.info(key))?.size ?? 0;
      if (found > 0) await deps.pages.clear(key, { offset: 0, length: found }, fence);
      await deps.pages.resize(key, size, fence);
    }
    if (options.sizeBytes > 0) {
      await disk.setSize(options.sizeBytes);
      disk.#tree = new DiskTree({ sizeBytes: options.sizeBytes, known: 'zero' });
    }
    return disk;
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  /** Bytes of the body that the blob has room for. */
  get room(): number {
    return this.#room;
  }

  /** Provisional room for a body that ends at `end`; the size is unknown from then on. */
  async makeRoom(end: number): Promise<void> {
    if (end <= this.#room) return;
    let room = Math.max(ROOM_MIN, vhdBodySize(this.#room));
    while (room < end) room *= 2;
    room = Math.min(room, REPLICA_BODY_MAX);
    checkRoom({ machineId: this.#machineId, name: this.name }, end);
    if (this.#sizeBytes > 0) await this.#clearFooter();
    await this.#resize(room);
    this.#sizeBytes = 0;
    this.#tree = undefined;
  }

  /** The size as a barrier or the catalog says it: exact room, and a footer. */
  async setSize(sizeBytes: number): Promise<void> {
    if (sizeBytes === this.#sizeBytes) return;
    const body = vhdBodySize(sizeBytes);
    checkRoom({ machineId: this.#machineId, name: this.name }, body);
    if (this.#sizeBytes > 0 && body > this.#room) await this.#clearFooter();
    if (body !== this.#room) await this.#resize(body);
    const footer = encodeVhdFooter({
      bodySize: body,
      uniqueId: vhdUniqueId({ machineId: this.#machineId, index: this.index }),
    });
    await this.#deps.pages.write(this.key, footer, body, this.#deps.fence.of(this.key));
    this.#sizeBytes = sizeBytes;
    this.#tree?.resize(sizeBytes);
  }

  /** The writes of a round, in no order that matters: they don't overlap. */
  *writes(pending: PendingDisk): Generator<() => Promise<void>> {
    for (const change of pending.changes({ end: this.#room })) yield () => this.#apply(change);
    const hashes = pending.leafHashes();
    for (const { leaf } of hashes) this.#tree?.markChanged(leaf);
    yield* this.#leaves.updates(hashes);
  }

  /** The blocks of a leaf that the source has, as a mask; those of the padded body behind them are zero, and 0 is said of leaves there. */
  blocksOf(leaf: number): number {
    if (this.#sizeBytes === 0) return WHOLE_LEAF;
    const blocks = Math.ceil((this.#sizeBytes - leaf * LEAF_SIZE) / BLOCK_SIZE);
    return blocks >= BLOCKS_PER_LEAF ? WHOLE_LEAF : (1 << Math.max(0, blocks)) - 1;
  }

  /** Zeros again what lies behind the source's bytes, which nobody can send again. */
  async clearPadding(): Promise<void> {
    const offset = Math.ceil(this.#sizeBytes / BLOCK_SIZE) * BLOCK_SIZE;
    const length = vhdBodySize(this.#sizeBytes) - offset;
    if (length <= 0) return;
    await this.#deps.pages.clear(this.key, { offset, length }, this.#deps.fence.of(this.key));
    const zeros: { leaf: number; hash: Uint8Array }[] = [];
    for (let leaf = Math.ceil(offset / LEAF_SIZE); leaf * LEAF_SIZE < offset + length; leaf += 1)
      zeros.push({ leaf, hash: ZERO_LEAF_HASH });
    for (const { leaf } of zeros) this.#tree?.markChanged(leaf);
    for (const write of this.#leaves.updates(zeros)) await write();
  }

  /** The Merkle root that the leaf table gives. The first one of an opened disk reads all of the table that is not zero. */
  async root(): Promise<string> {
    this.#tree ??= await this.#readTree();
    return await this.#tree.root(this.#leaves);
  }

  async #readTree(): Promise<DiskTree> {
    const tree = new DiskTree({ sizeBytes: this.#sizeBytes, known: 'zero' });
    for await (const { offset, length } of this.#deps.pages.ranges(this.leavesKey)) {
      const last = Math.floor((offset + length - 1) / HASH_SIZE);
      for (let leaf = Math.floor(offset / HASH_SIZE); leaf < last; leaf += CHUNK_LEAVES)
        tree.markChanged(leaf);
      tree.markChanged(last);
    }
    return tree;
  }

  async #apply(change: PageChange): Promise<void> {
    const fence = this.#deps.fence.of(this.key);
    if (change.kind === 'write')
      await this.#deps.pages.write(this.key, joinBlocks(change), change.offset, fence);
    else
      await this.#deps.pages.clear(
        this.key,
        { offset: change.offset, length: change.length },
        fence,
      );
  }

  async #clearFooter(): Promise<void> {
    await this.#deps.pages.clear(
      this.key,
      { offset: vhdBodySize(this.#sizeBytes), length: VHD_FOOTER_SIZE },
      this.#deps.fence.of(this.key),
    );
  }

  async #resize(room: number): Promise<void> {
    const { pages, fence } = this.#deps;
    const sizes = this.#blobSizes(room);
    await pages.resize(this.key, sizes.vhd, fence.of(this.key));
    await pages.resize(this.leavesKey, sizes.leaves, fence.of(this.leavesKey));
    this.#room = room;
    this.#leaves = this.#table(false);
  }

  #blobSizes(room: number): { room: number; vhd: number; leaves: number } {
    return { room, vhd: room + VHD_FOOTER_SIZE, leaves: (room / LEAF_SIZE) * HASH_SIZE };
  }

  #table(fresh: boolean): LeafTable {
    const { pages, fence, leafCache } = this.#deps;
    const key = this.leavesKey;
    leafCache.clear();
    return new LeafTable({
      cache: leafCache,
      blob: {
        key,
        size: (this.#room / LEAF_SIZE) * HASH_SIZE,
        fresh,
        read: (range) => pages.read(key, range),
        write: (bytes, offset) => pages.write(key, bytes, offset, fence.of(key)),
      },
    });
  }
}

interface DiskIdentity {
  machineId: string;
  index: number;
  name: string;
}

function checkRoom(disk: { machineId: string; name: string }, room: number): void {
  if (room > REPLICA_BODY_MAX)
    throw new ReplicaDamaged(
      disk.machineId,
      `disk ${disk.name} would need ${room} bytes, and a page blob holds ${REPLICA_BODY_MAX}. Protect a smaller disk.`,
    );
}
