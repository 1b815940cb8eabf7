import {
  linkSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { emptyReport, publish } from './report.ts';

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(path.join(os.tmpdir(), 'farshore-report-'));
});

afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

test('a report takes the place of the one before as a whole: whoever has that one open never sees a part', () => {
  const [file, opened] = [path.join(folder, 'report.json'), path.join(folder, 'opened')];
  writeFileSync(file, 'the one before');
  linkSync(file, opened);
  publish({ ...emptyReport(), ok: true }, file);
  expect(JSON.parse(readFileSync(file, 'utf8')).ok).toBe(true);
  expect(readFileSync(opened, 'utf8')).toBe('the one before');
  expect(readdirSync(folder).sort()).toEqual(['opened', 'report.json']);
});

test('a link is written through, not replaced: /dev/stdout stays what it is', () => {
  const [file, link] = [path.join(folder, 'real.json'), path.join(folder, 'link.json')];
  writeFileSync(file, '');
  symlinkSync(file, link);
  publish(emptyReport(), link);
  expect(readlinkSync(link)).toBe(file);
  expect(JSON.parse(readFileSync(file, 'utf8')).ok).toBe(false);
});
