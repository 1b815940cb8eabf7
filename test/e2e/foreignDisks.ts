/** Disk images as somebody else may have them, and a workload of somebody else's on them. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import path from 'node:path';

const MIB = 1 << 20;

/** ext4 over the whole disk, whose size is a whole number of sectors and of nothing larger. */
export function makeUnevenDisk(file: string): string {
  makeEmpty(file, 24 * MIB + 7 * 512);
  run('mkfs.ext4', '-q', '-F', file);
  return file;
}

/** GPT with one ext4 partition of 60 MiB. */
export function makeGptDisk(file: string): string {
  makeEmpty(file, 64 * MIB);
  partition(file, ['label: gpt', 'start=1MiB, size=60MiB']);
  run('mkfs.ext4', '-q', '-F', '-E', `offset=${MIB}`, file, '60M');
  return file;
}

/** The GPT disk's partition, as a file. */
export function partitionOf(disk: string, file: string): string {
  run('dd', `if=${disk}`, `of=${file}`, 'bs=1M', 'skip=1', 'count=60', 'conv=sparse');
  return file;
}

/**
 * Commits numbered rows to an SQLite database in its argument, one transaction each, and says `number milliseconds` once a row is
 * durable.
 */
export function makeDatabaseWorkload(file: string): string {
  const program = `#!/usr/bin/env python3
import os, sqlite3, sys, time
folder = os.path.join(sys.argv[1], 'shop')
os.makedirs(folder, exist_ok=True)
database = sqlite3.connect(os.path.join(folder, 'orders.db'))
database.execute('PRAGMA synchronous=FULL')
database.execute('CREATE TABLE orders (number INTEGER PRIMARY KEY, what BLOB)')
database.execute('CREATE INDEX byWhat ON orders (what)')
number = 0
while True:
    number += 1
    with database:
        database.execute('INSERT INTO orders VALUES (?, ?)', (number, os.urandom(200)))
    print(number, int(time.time() * 1000), flush=True)
    time.sleep(0.02)
`;
  writeFileSync(file, program, { mode: 0o755 });
  return file;
}

/** The newest row that its output says was durable at this time. */
export function lastDurableRow(log: string, timeMs: number): number {
  const rows = readFileSync(log, 'utf8').trimEnd().split('\n');
  const durable = rows.map((row) => row.split(' ').map(Number));
  return Math.max(0, ...durable.map(([number = 0, time = 0]) => (time <= timeMs ? number : 0)));
}

/** Reads the database out of a filesystem that is not mounted; what SQLite says of it, and its newest row. */
export function examineDatabase(
  filesystem: string,
  folder: string,
): { integrity: string; last: number } {
  mkdirSync(folder);
  run('debugfs', '-R', `rdump /shop ${folder}`, filesystem);
  const program = `import sqlite3, sys
database = sqlite3.connect(sys.argv[1])
print(database.execute('PRAGMA integrity_check').fetchone()[0], database.execute('SELECT max(number) FROM orders').fetchone()[0])`;
  const database = path.join(folder, 'shop/orders.db');
  const [integrity = '', last] = run('python3', '-c', program, database).trim().split(' ');
  return { integrity, last: Number(last) };
}

/** Throws, with what is wrong, unless the filesystem is clean. Changes nothing. */
export function checkFilesystem(filesystem: string): void {
  run('e2fsck', '-f', '-n', filesystem);
}

function partition(file: string, lines: readonly string[]): void {
  execFileSync('sfdisk', ['-q', '--no-reread', '--no-tell-kernel', file], {
    input: `${lines.join('\n')}\n`,
  });
}

function makeEmpty(file: string, sizeBytes: number): void {
  writeFileSync(file, '');
  truncateSync(file, sizeBytes);
}

function run(program: string, ...args: string[]): string {
  return execFileSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}
