/**
 * Where swap lies on the disks: /proc/swaps, resolved through partitions, mapped devices and the extents of swap files.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync, statSync } from 'node:fs';
import type { FreezePlan } from '../ports.ts';
import { SECTOR_SIZE, splitDeviceNumber, sysfs } from './sysfs.ts';

/** Bytes of a device or disk, by kernel name. */
export interface Extent {
  device: string;
  offset: number;
  length: number;
}

const HEADER_SIZE = 4096;

export interface SwapArea {
  path: string;
  kind: 'partition' | 'file';
  /** With the header page. */
  length: number;
}

export function parseSwaps(text: string): SwapArea[] {
  return text
    .split('\n')
    .slice(1)
    .map((line) => line.trim().split(/\s+/))
    .filter((fields) => fields.length >= 5)
    .map(([path = '', type, kib]) => ({
      path: path.replace(/\\040\(deleted\)$/, '').replace(/\\040/g, ' '),
      kind: type === 'partition' ? ('partition' as const) : ('file' as const),
      length: Number(kib) * 1024 + HEADER_SIZE,
    }));
}

/** Swap on the disks that `devicePathOf` knows (kernel name → the path the disk is protected by). */
export function swapOn(devicePathOf: ReadonlyMap<string, string>): FreezePlan['swap'] {
  const areas: FreezePlan['swap'][number][] = [];
  for (const area of parseSwaps(readFileSync('/proc/swaps', 'utf8'))) {
    const extents = area.kind === 'partition' ? deviceExtents(area) : fileExtents(area);
    for (const [index, extent] of extents.entries())
      for (const [part, piece] of onDisks(extent).entries()) {
        const devicePath = devicePathOf.get(piece.device);
        if (devicePath === undefined) continue;
        const { offset, length } = piece;
        const header = index === 0 && part === 0;
        areas.push({ devicePath, offset, length, kind: area.kind, header });
      }
  }
  return areas;
}

function deviceExtents(area: SwapArea): Extent[] {
  try {
    return [{ device: sysfs.kernelNameOf(area.path), offset: 0, length: area.length }];
  } catch {
    return [];
  }
}

function fileExtents(area: SwapArea): Extent[] {
  try {
    const device = sysfs.kernelNameOfNumber(splitDeviceNumber(statSync(area.path).dev));
    // btrfs reports places in its own address space.
    if (device === undefined) return [];
    const text = execFileSync('filefrag', ['-e', area.path], { encoding: 'utf8' });
    return parseFileExtents(text).map((extent) => ({ device, ...extent }));
  } catch {
    // Without its extents the file is copied like any other.
    return [];
  }
}

/** Output of `filefrag -e`. Bytes on the filesystem's device, in the file's order. */
export function parseFileExtents(text: string): { offset: number; length: number }[] {
  const blockSize = Number(/blocks? of (\d+) bytes/.exec(text)?.[1] ?? HEADER_SIZE);
  return [...text.matchAll(/^\s*\d+:\s*(\d+)\.\.\s*\d+:\s*(\d+)\.\.\s*\d+:\s*(\d+):/gm)].map(
    (match) => ({
      offset: Number(match[2]) * blockSize,
      length: Number(match[3]) * blockSize,
    }),
  );
}

/** Follows an extent down to whole disks; empty when some layer (RAID, thin volumes) moves blocks in ways we don't follow. */
function onDisks(extent: Extent, depth = 0): Extent[] {
  if (depth > 8) return [];
  const partition = sysfs.partitionOf(extent.device);
  if (partition !== undefined)
    return onDisks(
      { device: partition.disk, offset: partition.offset + extent.offset, length: extent.length },
      depth + 1,
    );
  const mapped = sysfs.attribute(extent.device, 'dm/name');
  if (mapped !== undefined)
    return throughTable(extent, mappingOf(mapped)).flatMap((piece) => onDisks(piece, depth + 1));
  if (sysfs.neighbours(extent.device, 'slaves').length > 0) return [];
  return [extent];
}

export interface Mapping {
  start: number;
  length: number;
  device: string;
  offset: number;
}

function mappingOf(name: string): Mapping[] {
  try {
    return parseMappingTable(execFileSync('dmsetup', ['table', name], { encoding: 'utf8' }));
  } catch {
    return [];
  }
}

/** `dmsetup table`; linear and crypt targets move nothing but the start. Empty as soon as another target is among them. */
export function parseMappingTable(text: string): Mapping[] {
  const mappings: Mapping[] = [];
  for (const line of text.trim().split('\n')) {
    const fields = line.replace(/^[^\s:]+: /, '').split(/\s+/);
    const [start, length, target] = fields;
    const at = target === 'linear' ? 3 : target === 'crypt' ? 6 : undefined;
    if (at === undefined) return [];
    const [major, minor] = (fields[at] ?? '').split(':').map(Number);
    if (major === undefined || minor === undefined) return [];
    const device = sysfs.kernelNameOfNumber({ major, minor });
    if (device === undefined) return [];
    mappings.push({
      start: Number(start) * SECTOR_SIZE,
      length: Number(length) * SECTOR_SIZE,
      device,
      offset: Number(fields[at + 1]) * SECTOR_SIZE,
    });
  }
  return mappings;
}

export function throughTable(extent: Extent, table: readonly Mapping[]): Extent[] {
  return table.flatMap((mapping) => {
    const start = Math.max(extent.offset, mapping.start);
    const end = Math.min(extent.offset + extent.length, mapping.start + mapping.length);
    if (start >= end) return [];
    return [
      {
        device: mapping.device,
        offset: mapping.offset + start - mapping.start,
        length: end - start,
      },
    ];
  });
}
