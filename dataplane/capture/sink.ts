/**
 * Where captured records go: a session with a process server, or a test. When the session ends, pending calls reject; what was sent
 * in it may or may not have been journaled, and the next session says.
 */
export interface RecordSink {
  /** LSN of the next record. */
  readonly nextLsn: bigint;
  /** The most bytes of records in one `send`; at least 128 KiB. */
  readonly batchBytes: number;
  /** Gives the records their LSNs and sends them, as far as credit allows. The caller may change `records` once it resolves. */
  send(batch: { records: Uint8Array; count: number }): Promise<void>;
  /** Which of these consecutive leaves differ from what the journal holds: one AnswerCode a leaf. */
  ask(question: { disk: number; firstLeaf: number; hashes: Uint8Array }): Promise<Uint8Array>;
}
