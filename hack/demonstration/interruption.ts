/**
 * Ends a program that must undo what it made: aborted, with the reason, by a signal or by an error that nobody caught. Whoever listens to
 * its output may go away (a closed terminal, `| head`): what was started must be undone all the same.
 */
export function interruption(say: (line: string) => void): AbortController {
  const interrupted = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.on(signal, () => interrupted.abort(new Error(`ended by ${signal}`)));
  process.on('uncaughtException', (error) => {
    interrupted.abort(error);
    say(`unexpected: ${error.stack}`);
  });
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined);
  return interrupted;
}
