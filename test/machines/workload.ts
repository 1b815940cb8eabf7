#!/usr/bin/env node
/**
 * What runs in a source machine: `workload.ts MOUNT_POINT` appends numbered records to MOUNT_POINT/workload/records, each made
 * durable before the next, and rewrites other files beside it, until it is killed. It goes on where a former run ended.
 *
 * A record is 128 bytes of text: `R`, 100000000000 + number, 8 random words, 10000000000 + checksum, padded with `.` and a
 * newline; all one blank apart. Checksum: c = number, then c = (c * 31 + word) mod 4294967291. (Decimal and small enough for the
 * guest's awk, which checks all of them after recovery.) A *.blob file starts with a line that is the SHA-256 of the rest.
 *
 * FARSHORE_WORKLOAD_LOG: a file elsewhere that gets a line `number milliseconds-since-the-epoch` for each record once it is
 * durable: what a later barrier has promised. FARSHORE_WORKLOAD_RATE: records a second [50]. FARSHORE_WORKLOAD_CHURN_KIB:
 * KiB a second written elsewhere [1024].
 */
import { createHash, randomBytes } from 'node:crypto';
import {
  closeSync,
  existsSync,
  fdatasyncSync,
  fstatSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  writeSync,
} from 'node:fs';
import path from 'node:path';

export const RECORD_BYTES = 128;
const WORDS = 8;
const MODULUS = 4_294_967_291;
const BLOBS = 8;
const PAGE = 4096;
const PAGES = 2048;

/** One record's line. Words are at least 1000000000, so that all have ten digits. */
export function record(number: number, random: Buffer): string {
  let sum = number;
  const words: number[] = [];
  for (let index = 0; index < WORDS; index++) {
    const word = 1_000_000_000 + (random.readUInt32LE(index * 4) % 3_000_000_000);
    words.push(word);
    sum = (sum * 31 + word) % MODULUS;
  }
  const text = `R ${100_000_000_000 + number} ${words.join(' ')} ${10_000_000_000 + sum} `;
  return `${text.padEnd(RECORD_BYTES - 1, '.')}\n`;
}

/** The newest record that was durable at `timeMs` according to a FARSHORE_WORKLOAD_LOG; 0 when none was. */
export function lastDurableRecord(log: string, timeMs: number): number {
  let last = 0;
  for (const line of readFileSync(log, 'utf8').split('\n').slice(0, -1)) {
    const [number, time] = line.split(' ').map(Number);
    if (number !== undefined && time !== undefined && time <= timeMs) last = Math.max(last, number);
  }
  return last;
}

async function run(mountPoint: string): Promise<never> {
  const directory = path.join(mountPoint, 'workload');
  mkdirSync(directory, { recursive: true });
  const records = openSync(path.join(directory, 'records'), 'a');
  const pages = openPages(path.join(directory, 'pages'));
  const logFile = process.env.FARSHORE_WORKLOAD_LOG;
  const log = logFile === undefined ? undefined : openSync(logFile, 'a');
  const interval = 1000 / positiveFromEnvironment('FARSHORE_WORKLOAD_RATE', 50);
  const churnBytes = positiveFromEnvironment('FARSHORE_WORKLOAD_CHURN_KIB', 1024) * 1024;

  let number = Math.floor(fstatSync(records).size / RECORD_BYTES);
  const started = performance.now();
  let churned = 0;
  let round = 0;
  for (;;) {
    number++;
    writeSync(records, record(number, randomBytes(WORDS * 4)));
    fdatasyncSync(records);
    if (log !== undefined) writeSync(log, `${number} ${Date.now()}\n`);
    const dueChurn = ((performance.now() - started) / 1000) * churnBytes;
    while (churned < dueChurn)
      churned += round++ % 3 === 0 ? rewriteBlob(directory) : rewritePages(pages);
    await new Promise((resolve) => setTimeout(resolve, interval));
  }
}

/** A whole file, replaced the careful way: whatever moment a disk is recovered at, the name leads to a file that is right. */
function rewriteBlob(directory: string): number {
  const name = path.join(directory, `${randomBytes(1).readUInt8() % BLOBS}.blob`);
  const body = randomBytes(64 * 1024 + (randomBytes(2).readUInt16LE() % (128 * 1024)));
  const file = openSync(`${name}.new`, 'w');
  try {
    writeSync(file, `${createHash('sha256').update(body).digest('hex')}\n`);
    writeSync(file, body);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  renameSync(`${name}.new`, name);
  return body.length;
}

/** Pages here and there in one file, in place and never synced: the dirt of a database. */
function rewritePages(file: number): number {
  const count = 16;
  for (let index = 0; index < count; index++)
    writeSync(file, randomBytes(PAGE), 0, PAGE, (randomBytes(2).readUInt16LE() % PAGES) * PAGE);
  return count * PAGE;
}

function openPages(name: string): number {
  return openSync(name, existsSync(name) ? 'r+' : 'w+');
}

function positiveFromEnvironment(name: string, otherwise: number): number {
  const value = Number(process.env[name] ?? otherwise);
  if (!(value > 0)) throw new Error(`${name} must be a positive number, not ${process.env[name]}`);
  return value;
}

if (import.meta.main) {
  const mountPoint = process.argv[2];
  if (mountPoint === undefined) {
    console.error('usage: workload.ts MOUNT_POINT');
    process.exit(2);
  }
  await run(mountPoint);
}
