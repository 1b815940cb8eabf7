import type { Clock } from '../../platform/ports.ts';
import type { Connection } from '../wire/connection.ts';
import { FrameType } from '../wire/messages.ts';

const HEARTBEAT_MS = 5_000;

/** Keeps an agent that has to wait from thinking that we are dead. Resolves with `waitedFor`. */
export async function heartbeatsUntil(
  waitedFor: Promise<void>,
  to: { connection: Connection; clock: Clock },
): Promise<void> {
  const { connection, clock } = to;
  const done = new AbortController();
  const beat = async () => {
    while (!done.signal.aborted && !connection.ended) {
      await connection.send(FrameType.Heartbeat, { timeMs: clock.now() });
      await clock.sleep(HEARTBEAT_MS, done.signal);
    }
  };
  // It ends by the abort or with the connection; both are seen by who waits.
  const beating = beat().catch(() => undefined);
  await waitedFor;
  done.abort();
  await beating;
}
