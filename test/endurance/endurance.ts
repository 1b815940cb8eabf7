/** The run itself, from the outside: see docs/ENDURANCE.md. main.ts runs it. */

import { cpSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { interruption } from '../../hack/demonstration/interruption.ts';
import { publish } from '../../hack/demonstration/report.ts';
import { Undo } from '../../hack/demonstration/undo.ts';
import { ensureKubernetes } from '../../hack/kubernetes.ts';
import { parseOptions } from './options.ts';
import { emptyReport, linesOf, problemsOf } from './report.ts';
import { Run } from './run.ts';
import { EnduranceSite } from './site.ts';
import { Patience } from './waiting.ts';

/** Two disks that must be consistent with each other, and one. */
const MACHINES = [
  { name: 'alpha', disksMiB: [96, 64] },
  { name: 'beta', disksMiB: [96] },
] as const;

const started = performance.now();
const options = parseOptions(process.argv.slice(2));
const undo = new Undo();
const interrupted = interruption(say);

const report = emptyReport(options);
const folder = mkdtempSync(path.join(os.tmpdir(), 'farshore-endurance-'));
const logs = path.join(folder, 'logs');
undo.add(`remove ${folder}`, () => rmSync(folder, { recursive: true, force: true }));
let run: Run | undefined;
try {
  await endure();
} catch (error) {
  report.problems.push(error instanceof Error ? error.message : String(error));
  if (error instanceof Error && !interrupted.signal.aborted) say(error.stack ?? '');
}
// From here on nothing is started again.
interrupted.abort(new Error('the run is over'));
await run?.leave();
if (options.logs !== undefined) cpSync(logs, options.logs, { recursive: true });
report.problems.push(...(await undo.all()).map((failure) => `could not ${failure}`));
report.ok = report.problems.length === 0;
for (const line of linesOf(report)) say(line);
if (options.json !== undefined) publish(report, options.json);
say(report.ok ? 'done: everything that was started is gone' : 'FAILED');
process.exit(report.ok ? 0 : 1);

async function endure(): Promise<void> {
  mkdirSync(logs);
  const { signal } = interrupted;
  const patience = new Patience(signal);
  say(`seed ${options.seed}`);
  process.env.KUBEBUILDER_ASSETS = await ensureKubernetes({ say, signal });
  say('starting an API server, storage, an operator, two process servers and an applier');
  const site = await EnduranceSite.start({ folder, logs, undo, patience, say });
  for (const { name, disksMiB } of MACHINES) await site.addMachine(name, disksMiB);
  run = new Run({ ...options, site, patience, say });
  await run.begin({ logs, undo });
  await run.faults();
  await run.converge();
  await run.judge(report);
  report.problems.push(...problemsOf(report));
}

function say(line: string): void {
  const seconds = ((performance.now() - started) / 1000).toFixed(0).padStart(5);
  console.log(`${seconds} s  ${line}`);
}
