/**
 * A program in the foreground that tidies up after itself. Ctrl-C in a terminal signals every process of the foreground's group at
 * once: servers would die before what depends on them could be undone. So the program and all that it starts run in a session of
 * their own, and this process alone gets the signal and passes it on.
 */
import { spawn } from 'node:child_process';

/** Ends this process with the program's exit code. */
export function runInForeground(what: {
  name: string;
  program: string;
  args: readonly string[];
}): void {
  const { name, program, args } = what;
  // Should this process be killed, the program is told to end.
  const command = ['--pdeathsig', 'TERM', process.execPath, program, ...args];
  const child = spawn('setpriv', command, {
    stdio: ['ignore', 'inherit', 'inherit'],
    detached: true,
  });
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.on(signal, () => child.kill(signal));
  child.once('error', (error) => {
    console.error(`${name}: ${error.message}`);
    process.exit(1);
  });
  child.once('exit', (code, signal) => {
    if (signal !== null) console.error(`${name}: ended by ${signal}; what it started may be left`);
    process.exit(code ?? 1);
  });
}
