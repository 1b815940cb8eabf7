/**
 * What a process server knows of each leaf of one disk: the hash that the journal's newest record gave it, in a flat file of 32 bytes a
 * leaf (zeros: a leaf of zeros, so that the file is as sparse as the disk), and whether that hash counts.
 *
 * A hash is *unsettled* while it may cover blocks that are still to come: from a record of part of a leaf until the next barrier
 * (record.ts). It is *pending* while the record that set it may not be in the vault yet.
 */
import type { Disk, DiskFile } from '../../platform/ports.ts';
import { DiskTree, isZero, type LeafHashes, leafEntry, sameBytes, ZERO_ENTRY } from './merkle.ts';
import { HASH_SIZE, LEAF_SIZE } from './record.ts';
import { SparseBitmap } from './sparseBitmap.ts';

/** Codes of an answer to the agent's question, as wire/messages.ts has them. */
export const LeafAnswer = { SameUploaded: 0, SamePending: 1, Differs: 2 } as const;

const PAGE_LEAVES = 128;
const PAGE_BYTES = PAGE_LEAVES * HASH_SIZE;
/** Pages of changed hashes held back per disk before they are written (4 MiB); fewer where there are many disks. */
const PAGES_MAX = 1024;
const PAGES_MIN = 32;
/** Of all disks (64 MiB). */
const PAGES_OF_ALL_MAX = 16_384;
/** More separate runs than this in a page: read it, merge, write it once. */
const RUNS_MAX = 3;
const READ_LEAVES_MAX = 32768;

/** Hashes not yet in the file. */
interface Page {
  bytes: Uint8Array;
  present: Uint8Array;
}

/** What all tables of a cache may hold back together, so that memory does not grow with the machines. */
export class HashPages {
  tables = 0;
  held = 0;

  /** Whether a table that holds so many must write them now. */
  mustWrite(held: number): boolean {
    const share = Math.floor(PAGES_OF_ALL_MAX / Math.max(1, this.tables));
    const most = Math.min(PAGES_MAX, Math.max(PAGES_MIN, share));
    return held >= most || (held > 0 && this.held >= PAGES_OF_ALL_MAX);
  }
}

export class LeafTable implements LeafHashes {
  readonly #file: DiskFile;
  readonly #unsettledFile: DiskFile;
  readonly #tree: DiskTree;
  readonly #unsettled = new SparseBitmap();
  #pendingSinceMark = new SparseBitmap();
  #pendingBeforeMark = new SparseBitmap();
  readonly #pages = new Map<number, Page>();
  readonly #allPages: HashPages;

  private constructor(parts: {
    file: DiskFile;
    unsettledFile: DiskFile;
    tree: DiskTree;
    pages: HashPages;
  }) {
    this.#allPages = parts.pages;
    this.#allPages.tables += 1;
    this.#file = parts.file;
    this.#unsettledFile = parts.unsettledFile;
    this.#tree = parts.tree;
  }

  /** `path` without extension. `fresh` begins with a disk of zeros, whatever files there are. */
  static async open(options: {
    disk: Disk;
    path: string;
    sizeBytes: number;
    fresh: boolean;
    pages?: HashPages;
  }): Promise<LeafTable> {
    const file = await options.disk.open(`${options.path}.leaves`, 'create');
    const unsettledFile = await options.disk.open(`${options.path}.unsettled`, 'create');
    if (options.fresh) {
      await file.truncate(0);
      await unsettledFile.truncate(0);
    }
    const tree = new DiskTree({
      sizeBytes: options.sizeBytes,
      known: options.fresh ? 'zero' : 'unread',
    });
    const pages = options.pages ?? new HashPages();
    const table = new LeafTable({ file, unsettledFile, tree, pages });
    await table.#unsettled.load(unsettledFile);
    await table.#cut();
    return table;
  }

  get sizeBytes(): number {
    return this.#tree.sizeBytes;
  }

  /** Leaves that the disk itself has; the padded body's further ones are zero. */
  get leaves(): number {
    return Math.ceil(this.#tree.sizeBytes / LEAF_SIZE);
  }

  /** A record gave this leaf a hash. `settled`: the record held the whole leaf. In memory until `relieve` or `sync`. */
  set(leaf: number, leafHash: Uint8Array, settled: boolean): void {
    this.#put(leaf, leafEntry(leafHash));
    if (settled) this.#unsettled.clear(leaf);
    else this.#unsettled.set(leaf);
  }

  /** The record that set the leaf is journaled and not in the vault. */
  setPending(leaf: number): void {
    this.#pendingSinceMark.set(leaf);
  }

  /** Everything pending is older than a mark that the caller remembers from now on. */
  markPending(): void {
    this.#pendingBeforeMark = this.#pendingSinceMark;
    this.#pendingSinceMark = new SparseBitmap();
  }

  /** What was pending at the mark is in the vault; with `all`, everything. */
  clearPending(what: 'beforeMark' | 'all'): void {
    this.#pendingBeforeMark = new SparseBitmap();
    if (what === 'all') this.#pendingSinceMark = new SparseBitmap();
  }

  /** A barrier: every hash holds. */
  settleAll(): void {
    this.#unsettled.clearAll();
  }

  /** Nothing known here may be believed before the next barrier. */
  distrustAll(): void {
    this.#unsettled.fill(this.leaves);
  }

  /** Hashes as the vault has them, for `bytes.length` / 32 leaves. Goes straight to the file. */
  async load(firstLeaf: number, bytes: Uint8Array): Promise<void> {
    await this.#file.write(bytes, firstLeaf * HASH_SIZE);
    for (let leaf = firstLeaf; leaf < firstLeaf + bytes.length / HASH_SIZE; leaf += PAGE_LEAVES)
      if (leaf < this.leaves) this.#tree.markChanged(leaf);
  }

  /** Leaves past a smaller end are forgotten; new ones are zero. */
  async resize(sizeBytes: number): Promise<void> {
    await this.#writePages();
    this.#tree.resize(sizeBytes);
    await this.#cut();
  }

  async read(firstLeaf: number, count: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(count * HASH_SIZE);
    await this.#file.read(bytes, firstLeaf * HASH_SIZE);
    const lastPage = Math.floor((firstLeaf + count - 1) / PAGE_LEAVES);
    for (let index = Math.floor(firstLeaf / PAGE_LEAVES); index <= lastPage; index++) {
      const page = this.#pages.get(index);
      if (page === undefined) continue;
      for (const run of runsOf(page)) {
        const from = Math.max(index * PAGE_LEAVES + run.first, firstLeaf);
        const to = Math.min(index * PAGE_LEAVES + run.end, firstLeaf + count);
        if (from >= to) continue;
        const within = (from - index * PAGE_LEAVES) * HASH_SIZE;
        bytes.set(
          page.bytes.subarray(within, within + (to - from) * HASH_SIZE),
          (from - firstLeaf) * HASH_SIZE,
        );
      }
    }
    return bytes;
  }

  /** One LeafAnswer a leaf: may the agent skip a leaf of this hash? */
  async ask(firstLeaf: number, hashes: Uint8Array): Promise<Uint8Array> {
    const count = hashes.length / HASH_SIZE;
    if (count > READ_LEAVES_MAX) throw new RangeError(`a question of ${count} leaves`);
    const answers = new Uint8Array(count);
    const entries = await this.read(firstLeaf, count);
    for (let i = 0; i < count; i++) {
      const asked = leafEntry(hashes.subarray(i * HASH_SIZE, (i + 1) * HASH_SIZE));
      const entry = entries.subarray(i * HASH_SIZE, (i + 1) * HASH_SIZE);
      answers[i] = this.#answer(firstLeaf + i, sameBytes(asked, entry));
    }
    return answers;
  }

  /** The Merkle root of the disk, hex. */
  async root(): Promise<string> {
    return await this.#tree.root(this);
  }

  /** Writes held-back hashes when there are many. */
  async relieve(): Promise<void> {
    if (this.#allPages.mustWrite(this.#pages.size)) await this.#writePages();
  }

  /** Makes hashes and settled state durable. Nothing may be set meanwhile. */
  async sync(): Promise<void> {
    await this.#writePages();
    await this.#unsettled.flush(this.#unsettledFile);
    await this.#file.sync();
    await this.#unsettledFile.sync();
  }

  async close(): Promise<void> {
    this.#allPages.tables -= 1;
    this.#allPages.held -= this.#pages.size;
    this.#pages.clear();
    await this.#file.close();
    await this.#unsettledFile.close();
  }

  /** Nothing is remembered of leaves past the end. */
  async #cut(): Promise<void> {
    const end = this.leaves * HASH_SIZE;
    if ((await this.#file.size()) > end) await this.#file.truncate(end);
    this.#unsettled.clearFrom(this.leaves);
  }

  #answer(leaf: number, same: boolean): number {
    if (!same || this.#unsettled.has(leaf)) return LeafAnswer.Differs;
    const pending = this.#pendingSinceMark.has(leaf) || this.#pendingBeforeMark.has(leaf);
    return pending ? LeafAnswer.SamePending : LeafAnswer.SameUploaded;
  }

  #put(leaf: number, entry: Uint8Array): void {
    const index = Math.floor(leaf / PAGE_LEAVES);
    let page = this.#pages.get(index);
    if (page === undefined) {
      page = { bytes: new Uint8Array(PAGE_BYTES), present: new Uint8Array(PAGE_LEAVES) };
      this.#pages.set(index, page);
      this.#allPages.held += 1;
    }
    const within = leaf % PAGE_LEAVES;
    page.bytes.set(entry, within * HASH_SIZE);
    page.present[within] = 1;
    this.#tree.markChanged(leaf);
  }

  /** Pages stay readable until all are in the file. */
  async #writePages(): Promise<void> {
    for (const index of [...this.#pages.keys()].sort((a, b) => a - b))
      await this.#writePage(index, this.#pages.get(index) as Page);
    this.#allPages.held -= this.#pages.size;
    this.#pages.clear();
  }

  async #writePage(index: number, page: Page): Promise<void> {
    const offset = index * PAGE_BYTES;
    const runs = runsOf(page);
    const onlyZeros = isZero(page.bytes);
    if (runs.length <= RUNS_MAX && !onlyZeros) {
      for (const run of runs)
        await this.#file.write(
          page.bytes.subarray(run.first * HASH_SIZE, run.end * HASH_SIZE),
          offset + run.first * HASH_SIZE,
        );
      return;
    }
    const merged = new Uint8Array(PAGE_BYTES);
    await this.#file.read(merged, offset);
    // Zeros over a hole would only make the file less sparse.
    if (onlyZeros && isZero(merged)) return;
    for (const run of runs)
      merged.set(
        page.bytes.subarray(run.first * HASH_SIZE, run.end * HASH_SIZE),
        run.first * HASH_SIZE,
      );
    await this.#file.write(merged, offset);
  }
}

function runsOf(page: Page): { first: number; end: number }[] {
  const runs: { first: number; end: number }[] = [];
  for (let first = page.present.indexOf(1); first !== -1; ) {
    const gap = page.present.indexOf(0, first);
    const end = gap === -1 ? PAGE_LEAVES : gap;
    runs.push({ first, end });
    first = end === PAGE_LEAVES ? -1 : page.present.indexOf(1, end);
  }
  return runs;
}

/** Whether a hash is that of a leaf of zeros. */
export function isZeroLeafHash(leafHash: Uint8Array): boolean {
  return leafEntry(leafHash) === ZERO_ENTRY;
}
