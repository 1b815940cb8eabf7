import { FarshoreError } from '../../platform/errors.ts';

export type WireErrorCode =
  /** A frame says it is longer than its type may be: a damaged length, or a peer that means harm. */
  | 'FrameTooLong'
  /** The checksum does not match: bytes were flipped on the way. */
  | 'FrameDamaged'
  /** The stream ended inside a frame. */
  | 'FrameCut'
  /** A type, reserved bit or stream that this version does not know. */
  | 'FrameUnknown'
  /** A known type that must not come from this peer at this moment. */
  | 'FrameUnexpected'
  /** The frame is whole, but its content is not what its type promises. */
  | 'MessageInvalid'
  /** Nothing was heard from the peer for the idle timeout. */
  | 'PeerSilent'
  /** The peer did not take what we sent for the idle timeout. */
  | 'PeerStuck'
  /** The peer sent more Data than it was given credit for. */
  | 'CreditExceeded'
  /** The connection was closed, by us or by the peer. */
  | 'ConnectionClosed';

/** Why a conversation can't go on. Each ends the connection; nothing that was acknowledged before is touched by it. */
export class WireError extends FarshoreError {
  declare readonly code: WireErrorCode;

  constructor(code: WireErrorCode, message: string, options?: ErrorOptions) {
    super(code, message, options);
  }
}
