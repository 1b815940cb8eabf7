import { beforeEach, expect, test } from 'vitest';
import { RecordingSink } from '../../test/fakes/recordingSink.ts';
import { FakeDisk } from '../../test/fakes/sourceMachine.ts';
import { LEAF_SIZE } from '../journal/record.ts';
import { leafHash } from './batch.ts';
import { CapturedDisk } from './disk.ts';
import { FrozenRead, probeReading } from './frozenRead.ts';

const BLOCK = 4096;
const LEAVES = 40;
/** The last leaf has three blocks. */
const SIZE = (LEAVES - 1) * LEAF_SIZE + 3 * BLOCK;

let device: FakeDisk;
let disk: CapturedDisk;
let sink: RecordingSink;

beforeEach(async () => {
  sink = new RecordingSink();
  device = new FakeDisk({ sizeBytes: SIZE });
  for (let at = 0; at < SIZE; at += BLOCK)
    device.bytes.fill(1 + ((at / BLOCK) % 251), at, at + BLOCK);
  disk = new CapturedDisk({ index: 0, device, identity: await device.identity() });
});

function write(offset: number, length: number, value: number): void {
  device.bytes.fill(value, offset, offset + length);
  disk.dirt.dirty.addBytes({ offset, length });
}

/** The leaf as the disk had it, zero past its end. */
function leafOf(bytes: Uint8Array, leaf: number): Uint8Array {
  const whole = new Uint8Array(LEAF_SIZE);
  whole.set(bytes.subarray(leaf * LEAF_SIZE, (leaf + 1) * LEAF_SIZE));
  return whole;
}

/** What was sent is what the disk held then, with hashes of whole leaves. */
function expectSent(frozen: Uint8Array, masks: Map<number, number>): void {
  const leaves = sink.sent.map(({ leaf }) => leaf).sort((a, b) => a - b);
  expect(leaves).toEqual([...masks.keys()].sort((a, b) => a - b));
  for (const { leaf, blockMask, zeroMask, blocks, leafHash: hash } of sink.sent) {
    const whole = leafOf(frozen, leaf);
    expect({ leaf, blockMask }).toEqual({ leaf, blockMask: masks.get(leaf) });
    expect(Buffer.compare(hash, leafHash(whole))).toBe(0);
    let at = 0;
    for (let block = 0; block < 16; block += 1) {
      if ((blockMask & (1 << block)) === 0) continue;
      const content = whole.subarray(block * BLOCK, (block + 1) * BLOCK);
      if ((zeroMask & (1 << block)) !== 0) expect(content.every((byte) => byte === 0)).toBe(true);
      else {
        expect(Buffer.compare(blocks.subarray(at, at + BLOCK), content)).toBe(0);
        at += BLOCK;
      }
    }
  }
}

/** A block of each leaf, as in a database: whole leaves would need LEAVES * 64 KiB. */
function writeOneBlockOfEach(): Map<number, number> {
  const masks = new Map<number, number>();
  for (let leaf = 0; leaf < LEAVES; leaf += 1) {
    const block = leaf % 3;
    write(leaf * LEAF_SIZE + block * BLOCK, BLOCK, leaf % 5 === 0 ? 0 : 200 + (leaf % 50));
    masks.set(leaf, 1 << block);
  }
  return masks;
}

test('single blocks all over a disk fit although their leaves would not, and go with the hashes of whole leaves', async () => {
  const masks = writeOneBlockOfEach();
  const memory = new FrozenRead([disk], { bytes: LEAVES * BLOCK });
  await memory.take([disk]);
  const frozen = device.bytes.slice();
  // Thawed: what the machine writes now is not of this barrier.
  device.bytes.fill(99);
  await memory.send(sink);
  expectSent(frozen, masks);
});

test('a leaf that is read again with more blocks is sent as it was read last', async () => {
  const masks = writeOneBlockOfEach();
  const memory = new FrozenRead([disk], { bytes: 2 * LEAVES * BLOCK });
  await memory.take([disk]);
  write(7 * LEAF_SIZE + 5 * BLOCK, 2 * BLOCK, 0);
  masks.set(7, (masks.get(7) ?? 0) | 0b1100000);
  write(11 * LEAF_SIZE, LEAF_SIZE, 0);
  masks.set(11, 0xffff);
  await memory.take([disk]);
  const frozen = device.bytes.slice();
  device.bytes.fill(99);
  await memory.send(sink);
  expectSent(frozen, masks);
});

test('a last leaf that is dirty as far as the disk goes is sent whole, zero past the end', async () => {
  const masks = writeOneBlockOfEach();
  write((LEAVES - 1) * LEAF_SIZE, 3 * BLOCK, 77);
  masks.set(LEAVES - 1, 0xffff);
  const memory = new FrozenRead([disk], { bytes: (LEAVES + 2) * BLOCK });
  await memory.take([disk]);
  const frozen = device.bytes.slice();
  await memory.send(sink);
  expectSent(frozen, masks);
});

test('what does not fit even so gives the barrier up, and all of it is dirty again', async () => {
  writeOneBlockOfEach();
  const memory = new FrozenRead([disk], { bytes: (LEAVES / 2) * BLOCK });
  await expect(memory.take([disk])).rejects.toMatchObject({ code: 'BehindTheLink' });
  memory.giveBack();
  expect(disk.dirt.dirty.size).toBe(LEAVES);
});

test('looking how fast disks are read leaves what is dirty as it is', async () => {
  writeOneBlockOfEach();
  expect(await probeReading([disk])).toEqual({ bytes: LEAVES * LEAF_SIZE, zeroShare: 0 });
  expect(disk.dirt.dirty.size).toBe(LEAVES);
});

test('nothing is read on once the time is over, and all of it is dirty again', async () => {
  writeOneBlockOfEach();
  const memory = new FrozenRead([disk], { bytes: LEAVES * LEAF_SIZE });
  let reads = 0;
  device.beforeRead = () => {
    reads += 1;
  };
  await expect(memory.take([disk], () => false)).rejects.toMatchObject({ code: 'BehindTheLink' });
  expect(reads).toBeLessThanOrEqual(4);
  memory.giveBack();
  expect(disk.dirt.dirty.size).toBe(LEAVES);
});

test('how fast disks are read is seen on all of them', async () => {
  const sizeBytes = 24 << 20;
  const devices = [1, 2].map((devT) => new FakeDisk({ path: `/dev/fake${devT}`, sizeBytes, devT }));
  const looked = new Set<string>();
  const disks = devices.map((one, index) => {
    one.beforeRead = () => looked.add(one.path);
    const captured = new CapturedDisk({ index, device: one, identity: one.identityNow });
    captured.dirt.dirty.addBytes({ offset: 0, length: sizeBytes });
    return captured;
  });
  const { bytes } = await probeReading(disks);
  expect(looked.size).toBe(2);
  expect(bytes).toBeLessThanOrEqual(16 << 20);
});
