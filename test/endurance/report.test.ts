/** What an endurance run calls a failure. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { AgentLog } from './agentLog.ts';
import { percentile, resentUnder, rpoSamples } from './journal.ts';
import { firstDifference } from './recovered.ts';
import { emptyReport, linesOf, problemsOf, type Report, type TakeoverCost } from './report.ts';

const takeover: TakeoverCost = {
  ...{ kind: 'processServerLost', machine: 'alpha', from: 'branch-0', to: 'branch-1' },
  ...{ epochBefore: 1, epochAfter: 2, struckMs: 0 },
  ...{ movedSeconds: 33, protectedSeconds: 55, fencedSeconds: 4 },
  ...{ resentBytes: 10, writtenBytes: 12 },
};

function good(change: Partial<Report> = {}): Report {
  return {
    ...emptyReport({ seed: 1, minutes: 1 }),
    disks: [{ machine: 'alpha', disk: 'system', matches: true }],
    takeovers: [takeover],
    resyncs: [{ machine: 'alpha', reason: 'TrackingLost', detail: 'overrun', explained: true }],
    ...change,
  };
}

describe('a run', () => {
  test('that compared everything, moved in time and explains its resyncs has no problem', () => {
    expect(problemsOf(good())).toEqual([]);
  });

  test.each<[string, Partial<Report>]>([
    ['is not the source', { disks: [{ machine: 'alpha', disk: 'system', matches: false }] }],
    ['no disk was compared', { disks: [] }],
    [
      'no fault explains',
      { resyncs: [{ machine: 'a', reason: 'VaultGap', detail: '', explained: false }] },
    ],
    ['moved only after 61', { takeovers: [{ ...takeover, movedSeconds: 61 }] }],
    ['under epoch 1', { takeovers: [{ ...takeover, epochAfter: 1 }] }],
    ['13 bytes were sent', { takeovers: [{ ...takeover, resentBytes: 13 }] }],
  ])('fails, and says why: %s', (why, change) => {
    const problems = problemsOf(good(change));
    expect(problems).toHaveLength(1);
    expect(problems[0]).toContain(why);
    expect(linesOf({ ...good(change), problems }).join('\n')).toContain(
      `PROBLEM       ${problems[0]}`,
    );
  });
});

test('the RPO rises second by second, and falls when a newer barrier is durable, not when it is made', () => {
  const barriers = [
    { timeMs: 10_000, durableMs: 12_000 },
    { timeMs: 14_000, durableMs: 15_000 },
  ];
  expect(rpoSamples(barriers, { fromMs: 11_000, toMs: 16_000 })).toEqual([2, 3, 4, 1, 2]);
});

test('percentiles are of the numbers by size', () => {
  const numbers = [9, 1, 100, 20, 3];
  expect([0, 0.5, 1].map((share) => percentile(numbers, share))).toEqual([1, 9, 100]);
  expect(percentile([], 0.5)).toBeUndefined();
});

test('what a takeover cost is what the first barrier of its epoch carries, since the last barrier that the agent can have been told of', () => {
  const at = (timeMs: number, writerEpoch: number, blockBytes: number) => ({
    ...{ timeMs, writerEpoch, blockBytes, lsn: BigInt(timeMs) },
    ...{ durableMs: timeMs, roots: new Map<number, string>() },
  });
  const barriers = [at(1, 1, 100), at(2, 1, 50), at(30_000, 2, 7), at(40_000, 2, 1)];
  const long = { writerEpoch: 2, struckMs: 20_000 };
  expect(resentUnder({ barriers }, long)).toEqual({ sentBytes: 7, fromMs: 2, toMs: 30_000 });
  // The second one came into the vault right before its process server was lost.
  const unheard = { writerEpoch: 2, struckMs: 10_001 };
  expect(resentUnder({ barriers }, unheard)).toEqual({ sentBytes: 7, fromMs: 1, toMs: 30_000 });
  expect(resentUnder({ barriers }, { ...long, writerEpoch: 3 })).toBeUndefined();
});

describe('a file', () => {
  function fileOf(content: Uint8Array | string): string {
    const folder = mkdtempSync(path.join(os.tmpdir(), 'farshore-endurance-test-'));
    onTestFinished(() => rmSync(folder, { recursive: true }));
    const file = path.join(folder, 'file');
    writeFileSync(file, content);
    return file;
  }

  test('that differs in one byte, or is too short, is told where', () => {
    const bytes = new Uint8Array((4 << 20) + 100).fill(7);
    expect(firstDifference(bytes, fileOf(bytes))).toBeUndefined();
    const changed = Uint8Array.from(bytes);
    changed[(4 << 20) + 50] = 8;
    expect(firstDifference(bytes, fileOf(changed))).toBe((4 << 20) + 50);
    expect(firstDifference(bytes, fileOf(bytes.subarray(0, 4 << 20)))).toBe(4 << 20);
  });

  test('of an agent tells the resyncs that it began, and since when it knew, whatever else is in it', () => {
    const why = { reason: 'TrackingLost', detail: 'overrun' };
    const line = (time: string, msg: string) => JSON.stringify({ ...why, time, msg });
    const needed = '2026-01-01T00:00:00.000Z';
    const begun = '2026-01-01T00:01:00.000Z';
    const later = '2026-01-01T00:02:00.000Z';
    const log = new AgentLog(
      fileOf(
        [
          line(begun, 'A resync begins').slice(0, 50),
          line(needed, 'A resync will be needed'),
          line(begun, 'A resync begins'),
          'no JSON',
          line(later, 'A resync begins'),
          '',
        ].join('\n'),
      ),
    );
    expect(log.resyncs).toEqual([
      { ...why, atMs: Date.parse(needed) },
      { ...why, atMs: Date.parse(later) },
    ]);
  });
});
