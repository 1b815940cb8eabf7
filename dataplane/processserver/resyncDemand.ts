import type { ResyncReason } from '../../vault/documents/machineStatus.ts';
import type { JournalPositions } from '../journal/machineJournal.ts';
import type { FrameType, Message } from '../wire/messages.ts';

/**
 * Whether an agent that says Hello must resync, and why; undefined when it may go on where it was.
 *
 * An agent stores the LSN that it gives before it sends the record. So one that says its tracking goes on, but knows of fewer records
 * than the journal has, was put back to an earlier moment, with its disks: a snapshot was restored. (An acknowledgement that got lost
 * is no such thing: the agent then knows of as many records.) Likewise one that names another cache although this one has its data.
 */
export function resyncDemanded(options: {
  hello: Message<typeof FrameType.Hello>;
  cacheId: string;
  cacheHasData: boolean;
  positions: JournalPositions;
}): ResyncReason | undefined {
  const { hello, positions } = options;
  if (hello.tracking.state === 'Lost') {
    const knewLess =
      hello.acknowledgedBarrierLsn > 0n &&
      hello.acknowledgedBarrierLsn < positions.lastBarrierLsn &&
      hello.capturedLsn < positions.lastBarrierLsn;
    return knewLess ? 'SourceReverted' : hello.tracking.reason;
  }
  if (hello.capturedLsn < positions.journaledLsn) return 'SourceReverted';
  if (options.cacheHasData && hello.cacheId !== options.cacheId) return 'SourceReverted';
  return undefined;
}
