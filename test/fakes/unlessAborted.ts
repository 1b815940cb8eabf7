/** What the call answers; rejects with the signal's reason when it aborts first. */
export async function unlessAborted<R>(
  answering: Promise<R>,
  signal: AbortSignal | undefined,
): Promise<R> {
  if (signal === undefined) return await answering;
  const { promise, reject } = Promise.withResolvers<never>();
  const abort = () => reject(signal.reason);
  if (signal.aborted) abort();
  else signal.addEventListener('abort', abort, { once: true });
  try {
    return await Promise.race([promise, answering]);
  } finally {
    signal.removeEventListener('abort', abort);
  }
}
