/**
 * The foreground of hack/demo. Ctrl-C in a terminal signals every process of the foreground's group at once: servers would die
 * before what depends on them could be undone. So the demonstration and all that it starts run in a session of their own, and
 * this process alone gets the signal and passes it on.
 */
import { spawn } from 'node:child_process';
import path from 'node:path';

const demonstration = spawn(
  // Should this process be killed, the demonstration is told to end.
  'setpriv',
  [
    ...['--pdeathsig', 'TERM', process.execPath],
    path.join(import.meta.dirname, 'demonstration.ts'),
    ...process.argv.slice(2),
  ],
  { stdio: ['ignore', 'inherit', 'inherit'], detached: true },
);
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
  process.on(signal, () => demonstration.kill(signal));
demonstration.once('error', (error) => {
  console.error(`hack/demo: ${error.message}`);
  process.exit(1);
});
demonstration.once('exit', (code, signal) => {
  if (signal !== null) console.error(`hack/demo: ended by ${signal}; what it started may be left`);
  process.exit(code ?? 1);
});
