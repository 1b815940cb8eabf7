import { defineConfig } from 'vitest/config';

/** Tests that freeze filesystems, attach loop devices or boot machines: one file at a time, for they wait for real deadlines. */
const deviceTests = [
  'test/integration/{agent,capture,datapath,endurance,errors,machines,scrub,sourceMachine}.test.ts',
];
/** One machine under emulation for all of them, which needs most of a core for minutes. */
const guestTests = ['test/integration/guest.test.ts'];
/** Try every call, every crash or many seeds: minutes of computing in virtual time, which may take as long as it likes. */
const thoroughTests = [
  'dataplane/journal/{cacheCrash,cacheExhaustive,replicaFaults}.test.ts',
  'recovery/killed*.test.ts',
  'test/operator/takeover.test.ts',
  'test/sim/sim.test.ts',
];
const benchmarkTests = ['test/integration/bench.test.ts'];
/** Run programs whole, from the outside. */
const wholeTests = ['test/e2e/**/*.test.ts'];
const slow = {
  testTimeout: 240_000,
  hookTimeout: 180_000,
  fileParallelism: false,
  pool: 'forks',
  // Deadlines are real time, and CI's two cores may be busy: a test that fails is tried once more there, and Vitest says so.
  retry: process.env.CI === undefined ? 0 : 1,
} as const;
const quick = {
  retry: slow.retry,
  // By default one core would be left out.
  maxWorkers: '100%',
} as const;
/** Fails tests that need root where there is none. */
const runner = './test/rootRunner.ts';

// unit: fast, no network beyond this process, no root. thorough: likewise, but not fast. servers: a real API server, Azurite, the ARM emulator, process servers.
// devices: agents on loop devices. guest: an agent in a guest. bench: that the benchmarks work. e2e: everything together. The last four
// need root; hack/run-tests.ts says what runs beside what.
export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: 'unit',
          include: ['**/*.test.ts'],
          exclude: [
            ...['**/node_modules/**', 'test/integration/**', 'test/e2e/**'],
            ...thoroughTests,
          ],
          // Some try every call of a run, one after the other; two cores may have other files at work beside.
          testTimeout: 60_000,
          ...quick,
        },
      },
      { test: { name: 'thorough', include: thoroughTests, testTimeout: 30 * 60_000, ...quick } },
      {
        test: {
          name: 'servers',
          include: ['test/integration/**/*.test.ts'],
          exclude: [...deviceTests, ...guestTests, ...benchmarkTests, ...wholeTests],
          ...slow,
        },
      },
      { test: { name: 'devices', include: deviceTests, ...slow, runner } },
      { test: { name: 'guest', include: guestTests, ...slow, runner } },
      { test: { name: 'bench', include: benchmarkTests, ...slow, runner } },
      { test: { name: 'e2e', include: wholeTests, ...slow, runner } },
    ],
  },
});
