import { FarshoreError } from './errors.ts';

export type ChannelErrorCode =
  /** Nothing listens there, or a firewall says no. */
  | 'ConnectionRefused'
  /** The host's name can't be resolved, or there is no route to it. */
  | 'HostUnreachable'
  /** No connection, or no TLS handshake, in time. */
  | 'ConnectTimeout'
  /** The peer's certificate is not signed by the CA that we trust, or names somebody else. */
  | 'PeerNotTrusted'
  /** TLS could not be agreed: the peer refused our certificate, or does not speak TLS 1.3. */
  | 'HandshakeFailed'
  /** An established connection broke. */
  | 'ConnectionLost'
  /** Used after we closed it. */
  | 'ChannelClosed';

/** Why a channel could not be made, or broke. */
export class ChannelError extends FarshoreError {
  declare readonly code: ChannelErrorCode;

  constructor(code: ChannelErrorCode, message: string, options?: ErrorOptions) {
    super(code, message, options);
  }
}
