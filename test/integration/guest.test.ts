/**
 * A machine that protects itself: the agent runs in a QEMU guest, from the root filesystem that it freezes, and sends what loop
 * devices can't show. One guest, one test after the other: each goes on where the last one left the machine.
 */
import { execFileSync } from 'node:child_process';
import path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { GUEST_SWAP } from '../machines/guestImage.ts';
import { bootMachine } from '../machines/qemu.ts';
import { checkFilesystem, compareData, readMember } from './guest/mirror.ts';
import { FREEZE_DEADLINE_SECONDS, Source } from './guest/source.ts';
import { World } from './guest/world.ts';
import { onAndOn } from './guest/writing.ts';

const MIB = 1 << 20;
const SWAP_HEADER = 4096;
const MIRRORED = ['left', 'right'];
/** An emulated machine is slow to notice that filesystems are to be thawed. */
const SLACK_SECONDS = 1.5;

let world: World;
let source: Source;

beforeAll(async () => {
  world = await World.create();
  source = await Source.create(world);
}, 120_000);

afterAll(async () => {
  await source?.off();
  await world?.remove();
});

/** What a point must hold of a disk: all of it, but of swap only the header. */
function canonicalCopy(name: string): string {
  const from = source.disks.get(name) ?? '';
  const copy = path.join(world.directory, `${name}-frozen.raw`);
  execFileSync('cp', ['--sparse=always', from, copy]);
  if (name === 'root') zero(copy, GUEST_SWAP.offset + SWAP_HEADER, GUEST_SWAP.length - SWAP_HEADER);
  return copy;
}

function zero(file: string, offset: number, length: number): void {
  execFileSync('dd', [
    ...['if=/dev/zero', `of=${file}`, 'bs=4096', 'conv=notrunc', 'status=none'],
    ...[`seek=${offset / 4096}`, `count=${length / 4096}`],
  ]);
}

/** Freezes the machine for good, compares what was recovered with the disks themselves, and lets it go. */
async function compareFrozenMachine(failover: string, names: readonly string[]) {
  const lsn = await world.askForFinal(failover, { timeoutMs: 60_000 });
  const line = await source.guest.run('tail -n 1 /var/workload');
  await source.guest.monitor('stop');
  const frozen = new Map(names.map((name) => [name, canonicalCopy(name)]));
  await source.guest.monitor('cont');
  const { point, files } = await world.recover(lsn);
  expect([...files.keys()].sort()).toEqual([...names].sort());
  const mirror = MIRRORED.filter((name) => names.includes(name));
  for (const [name, file] of files)
    if (!mirror.includes(name)) execFileSync('cmp', [file, frozen.get(name) ?? '']);
  if (mirror.length > 0) compareMirror({ files, frozen });
  const status = await world.status();
  expect(status?.finalBarrier?.failover).toBe(failover);
  await world.cancelFinal();
  return { point, files, line };
}

/** All but the RAID's own records, which the kernel writes when it likes, is as it was, and the same on both sides. */
function compareMirror(disks: { files: Map<string, string>; frozen: Map<string, string> }): void {
  const member = (of: Map<string, string>, name: string) => readMember(of.get(name) ?? '');
  for (const name of MIRRORED) compareData(member(disks.files, name), member(disks.frozen, name));
  const [left, right] = [member(disks.files, 'left'), member(disks.files, 'right')];
  compareData(left, right);
  expect(left.length).toBeGreaterThan(32 * MIB);
  expect(right.array).toBe(left.array);
  expect(Math.abs(left.events - right.events)).toBeLessThanOrEqual(1);
  checkFilesystem(left);
}

test('the root disk, with the agent on it, is copied and thawed after each barrier', async () => {
  await world.protect(source.wanted('root', 'fat', 'stack', 'fast', 'spare'));
  await world.statusWhen(
    'the initial replication',
    ({ resync, uploadedBarrier }) => resync === undefined && uploadedBarrier !== undefined,
    { timeoutMs: 240_000 },
  );
  await source.startProbe();
  const { barriers, errors, disks } = await world.moreBarriers(2, { timeoutMs: 120_000 });
  expect(await source.stopProbe()).toBeLessThan(FREEZE_DEADLINE_SECONDS);
  expect(barriers.maxFreezeMs).toBeGreaterThan(0);
  expect(errors).toEqual([]);
  expect(disks).toHaveLength(5);
  // The loop filesystem lies on a file, on a mapped device, on a disk; its freeze came first, or nothing would have come after.
  expect(await source.guest.run('findmnt -n -o SOURCE /run/mnt/inner')).toMatch(/^\/dev\/loop/);
}, 420_000);

test('a point is the machine’s disks byte for byte, swap’s body apart, and boots', async () => {
  const names = ['root', 'fat', 'stack', 'fast', 'spare'];
  const { files, line } = await compareFrozenMachine('first', names);
  const root = files.get('root') ?? '';
  const swap = { skip: GUEST_SWAP.offset, bytes: 2 * MIB };
  // The source has something there, so that an empty body proves something.
  expect(sumOf(source.disks.get('root') ?? '', swap)).not.toBe(sumOf(root, swap));
  const recovered = bootMachine({
    name: 'recovered',
    disks: [{ path: root, bus: 'ide' }],
    serialFile: path.join(world.directory, 'recovered.log'),
  });
  try {
    const [, device, said] = await recovered.waitFor(
      /FARSHORE-GUEST-UP root=(\S+) boot=\S+ line=(\d+)/,
      90_000,
    );
    expect({ device, line: said }).toEqual({ device: '/dev/sda1', line });
  } finally {
    await recovered.kill();
  }
  await world.moreBarriers(1);
}, 180_000);

function sumOf(file: string, part: { skip: number; bytes: number }): string {
  const script = 'dd if="$1" bs=4096 skip="$2" count="$3" status=none | sha256sum';
  const [skip, count] = [part.skip / 4096, part.bytes / 4096].map(String);
  return execFileSync('sh', ['-c', script, 'sh', file, skip ?? '', count ?? ''], {
    encoding: 'utf8',
  });
}

test('an agent that is stopped while the root is frozen keeps nobody waiting past the deadline', async () => {
  await source.afterFreezeOf('/', 'kill -STOP $(cat /run/agent.pid)');
  await source.startProbe();
  await source.guest.run(
    `while [ ! -f /run/after-freeze.log ]; do sleep 0.1; done; sleep ${FREEZE_DEADLINE_SECONDS + 1}; echo x >/var/written`,
  );
  const waited = await source.stopProbe();
  await source.guest.run('kill -CONT $(cat /run/agent.pid)');
  expect(waited).toBeLessThan(FREEZE_DEADLINE_SECONDS + SLACK_SECONDS);
  const { barriers } = await world.statusWhen(
    'the barrier that was thawed early is void',
    (status) => status.barriers.lastVoid?.includes('thawed') === true,
  );
  expect(barriers.lastVoid).toContain('/');
  await world.moreBarriers(1);
}, 90_000);

test('a write to a filesystem that can’t be frozen voids the barrier by the disk’s name', async () => {
  await source.afterFreezeOf(
    '/',
    // For longer than the freeze may last.
    onAndOn(
      'put(">", "/run/mnt/fat/late", "$i\\n"); syncfs("/run/mnt/fat"); exit if $i == 600; pause(0.01);',
    ),
  );
  const { barriers } = await world.statusWhen('a barrier is void for a write to FAT', (status) =>
    /\/dev\/vdb/.test(status.barriers.lastVoid ?? ''),
  );
  expect(barriers.voided).toBeGreaterThan(0);
  await world.moreBarriers(1);
}, 90_000);

test('a disk that was unplugged is missed by name, and the others go on without it', async () => {
  await source.guest.run('umount /run/mnt/spare');
  await source.guest.unplug('spare');
  const missed = await world.statusWhen('the disk is missed', ({ disks }) =>
    disks.some(({ index, error }) => index === 4 && error !== undefined),
  );
  expect(missed.disks.find(({ index }) => index === 4)?.error).toContain('/dev/sda');
  await world.protect([
    ...source.wanted('root', 'fat', 'stack', 'fast'),
    { index: 5, name: 'mapped', device: '/dev/mapper/stack' },
  ]);
  const refused = await world.statusWhen('a mapped device is refused', ({ errors, disks }) =>
    [...disks.map(({ error }) => error), ...errors.map(({ message }) => message)].some(
      (message) => message?.includes('mapped device') === true,
    ),
  );
  const said = JSON.stringify([refused.disks, refused.errors]);
  expect(said).toContain('the mapped device stack');
  expect(said).toContain('protect /dev/vdc instead');
  await world.protect(source.wanted('root', 'fat', 'stack', 'fast'));
  const { disks } = await world.moreBarriers(1, { timeoutMs: 100_000 });
  expect(disks.filter(({ error }) => error !== undefined)).toEqual([]);
}, 180_000);

test('a disk that was resized is compared anew and recovered at its new size', async () => {
  await source.guest.monitor('block_resize', { device: 'fat-drive', size: 64 * MIB });
  const { disks } = await world.statusWhen(
    'the resync for the new size has ended',
    ({ resync, lastResync, disks: known }) =>
      resync === undefined &&
      lastResync?.reason === 'DiskResized' &&
      known.some(({ index, sizeBytes }) => index === 1 && sizeBytes === 64 * MIB),
    { timeoutMs: 100_000 },
  );
  expect(disks).toContainEqual(expect.objectContaining({ index: 1, sizeBytes: 64 * MIB }));
  await world.moreBarriers(1);
}, 150_000);

test('an agent that is killed while the root is frozen keeps nobody waiting', async () => {
  await source.afterFreezeOf('/', 'kill -KILL $(cat /run/agent.pid)');
  await source.startProbe();
  await source.guest.run(
    'while [ ! -f /run/after-freeze.log ]; do sleep 0.1; done; sleep 1; echo x >/var/written',
  );
  expect(await source.stopProbe()).toBeLessThan(FREEZE_DEADLINE_SECONDS);
  expect((await source.guest.try('kill -0 $(cat /run/agent.pid)')).status).not.toBe(0);
}, 60_000);

test('a loss of power costs a comparison, not a copy, and the points go on', async () => {
  await source.off();
  await source.boot(['fat', 'stack', 'fast', 'left', 'right']);
  await world.protect(source.wanted('root', 'fat', 'stack', 'fast', 'left', 'right'));
  await source.beginWithMirror();
  await comparedAfterReboot({ since: 0 });
}, 180_000);

test('a mirror that is written to gets its barriers, although the kernel writes to it by itself, and both sides are recovered alike', async () => {
  const { barriers } = await world.moreBarriers(2, { timeoutMs: 120_000 });
  expect(barriers.lastVoid ?? '').not.toContain('wrote past the frozen filesystems');
  await compareFrozenMachine('second', ['root', 'fat', 'stack', 'fast', 'left', 'right']);
}, 240_000);

test('a reset from outside costs a comparison, not a copy, too', async () => {
  const { pid } = source.guest.machine;
  const boot = await source.guest.run('cat /proc/sys/kernel/random/boot_id');
  const since = (await world.status())?.lastResync?.finishedMs ?? 0;
  await source.guest.reset();
  expect(source.guest.machine).toMatchObject({ pid, running: true });
  expect(await source.guest.run('cat /proc/sys/kernel/random/boot_id')).not.toBe(boot);
  await world.protect(source.wanted('root', 'left', 'right'));
  await source.beginWithMirrorAlone();
  await comparedAfterReboot({ since });
}, 180_000);

async function comparedAfterReboot(resync: { since: number }): Promise<void> {
  const { lastResync } = await world.statusWhen(
    'the resync after the restart',
    ({ lastResync: last, resync: current }) =>
      last?.reason === 'AfterReboot' && last.finishedMs > resync.since && current === undefined,
    { timeoutMs: 120_000 },
  );
  expect(lastResync?.bytesSent).toBeLessThan((lastResync?.bytesTotal ?? 0) / 10);
}
