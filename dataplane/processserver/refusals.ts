/** How what went wrong is told to an agent. */
import { errorCode, errorMessage } from '../../platform/errors.ts';
import { type Fenced, JournalError } from '../journal/machineJournal.ts';
import { RecordError } from '../journal/record.ts';
import { encodeControl } from '../wire/encoder.ts';
import { WireError, type WireErrorCode } from '../wire/errors.ts';
import { FrameType, type Message, RefusalCode } from '../wire/messages.ts';

export type Refusal = Message<typeof FrameType.Refused>;

const SOON_MS = 1_000;
const LATER_MS = 15_000;
const MUCH_LATER_MS = 60_000;
const MESSAGE_MAX = 4_000;

export function refusal(
  code: RefusalCode,
  message: string,
  when: 'soon' | 'later' | 'muchLater' = 'later',
): Refusal {
  const retryAfterMs = { soon: SOON_MS, later: LATER_MS, muchLater: MUCH_LATER_MS }[when];
  return { code, message: message.slice(0, MESSAGE_MAX), retryAfterMs };
}

export function fencedRefusal(fenced: Fenced): Refusal {
  if (fenced.by === 'Seal')
    return refusal(
      RefusalCode.Sealed,
      `Failover ${fenced.failover} has sealed this machine's journal: the machine is, or is about to be, active in Azure. Nothing of what is written here is copied any more.`,
      'muchLater',
    );
  return refusal(
    RefusalCode.NotOwner,
    "Another process server writes this machine's journal now. Its address follows with the next assignments.",
    'later',
  );
}

/** For an error of the journal, or of anything else that a session met. */
export function refusalOfError(error: unknown): Refusal {
  const message = `${errorCode(error)}: ${errorMessage(error)}`;
  if (error instanceof RecordError) return refusal(RefusalCode.DataInvalid, message, 'soon');
  if (!(error instanceof JournalError)) return refusal(RefusalCode.JournalFailed, message);
  switch (error.code) {
    case 'LsnGap':
    case 'RecordRefused':
    case 'LeafHashMismatch':
    case 'BatchTooLong':
    case 'DiskUnknown':
    case 'DiskSizeMismatch':
    case 'ResyncRequired':
      return refusal(RefusalCode.DataInvalid, message, 'soon');
    case 'JournalFenced':
      return refusal(RefusalCode.NotOwner, message);
    case 'JournalClosed':
    case 'JournalOpen':
      return refusal(RefusalCode.NotReady, message, 'soon');
    default:
      return refusal(RefusalCode.JournalFailed, message);
  }
}

/** The last frame for an agent that broke the protocol (Connection's `farewell`). */
export function protocolFarewell(error: WireError): Uint8Array[] {
  const text = `${error.code}: ${error.message}`;
  return encodeControl(FrameType.Refused, refusal(RefusalCode.ProtocolBroken, text, 'soon'));
}

const PROTOCOL_ERRORS: readonly WireErrorCode[] = [
  'FrameTooLong',
  'FrameDamaged',
  'FrameCut',
  'FrameUnknown',
  'FrameUnexpected',
  'MessageInvalid',
  'CreditExceeded',
];

/** The agent sent what it must not send, or the way to us damages bytes: somebody should look, unlike at a lost connection. */
export function isProtocolError(error: Error): error is WireError {
  return error instanceof WireError && PROTOCOL_ERRORS.includes(error.code);
}
