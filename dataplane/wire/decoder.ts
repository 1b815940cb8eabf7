import { crc32 } from 'node:zlib';
import { WireError } from './errors.ts';
import { decodeFrameHeader, FRAME_HEADER_SIZE, type FrameHeader, frameTypeName } from './frame.ts';
import type { FrameType } from './messages.ts';

export interface Frame {
  type: FrameType;
  /** One contiguous buffer of its own; the receiver may keep it. */
  payload: Uint8Array;
  /** CRC-32, checked, of the header's first 8 bytes alone, and of these and the payload. */
  crc: { header: number; whole: number };
}

/**
 * Cuts a stream of bytes, split anywhere, into frames. Every byte is copied once, into a buffer made for its frame after the
 * length was checked. After an error the decoder is spent: it throws the same error again.
 */
export class FrameDecoder {
  readonly #header = new Uint8Array(FRAME_HEADER_SIZE);
  #headerFilled = 0;
  #current: FrameHeader | undefined;
  #payload = new Uint8Array(0);
  #payloadFilled = 0;
  #headerCrc = 0;
  #crc = 0;
  #failure: WireError | undefined;
  readonly #accepts: (type: FrameType) => boolean;

  /** `accepts`: types that this peer may send now; others are refused before anything is allocated for them. */
  constructor(options: { accepts?: (type: FrameType) => boolean } = {}) {
    this.#accepts = options.accepts ?? (() => true);
  }

  /** The frames that these bytes complete, in order. Throws WireError. */
  push(chunk: Uint8Array): Frame[] {
    if (this.#failure !== undefined) throw this.#failure;
    try {
      return this.#consume(chunk);
    } catch (error) {
      if (error instanceof WireError) this.#failure = error;
      throw error;
    }
  }

  /** The stream ended: throws WireError FrameCut unless it ended between two frames. */
  end(): void {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#headerFilled === 0) return;
    const what =
      this.#current === undefined
        ? `${this.#headerFilled} of the ${FRAME_HEADER_SIZE} bytes of a frame's header`
        : `${this.#payloadFilled} of the ${this.#current.payloadLength} bytes of a ${frameTypeName(this.#current.type)} frame`;
    this.#failure = new WireError('FrameCut', `The connection ended after ${what}.`);
    throw this.#failure;
  }

  #consume(chunk: Uint8Array): Frame[] {
    const frames: Frame[] = [];
    let offset = 0;
    while (offset < chunk.length) {
      if (this.#current === undefined) {
        offset += this.#fillHeader(chunk, offset);
        if (this.#headerFilled < FRAME_HEADER_SIZE) break;
        this.#begin();
      }
      offset += this.#fillPayload(chunk, offset);
      const frame = this.#complete();
      if (frame !== undefined) frames.push(frame);
    }
    return frames;
  }

  #fillHeader(chunk: Uint8Array, offset: number): number {
    const count = Math.min(FRAME_HEADER_SIZE - this.#headerFilled, chunk.length - offset);
    this.#header.set(chunk.subarray(offset, offset + count), this.#headerFilled);
    this.#headerFilled += count;
    return count;
  }

  #begin(): void {
    const header = decodeFrameHeader(this.#header);
    if (!this.#accepts(header.type))
      throw new WireError(
        'FrameUnexpected',
        `The peer sent a ${frameTypeName(header.type)} frame, which it may not send at this point of the conversation.`,
      );
    this.#current = header;
    this.#payload = Buffer.allocUnsafe(header.payloadLength);
    this.#payloadFilled = 0;
    this.#headerCrc = crc32(this.#header.subarray(0, 8));
    this.#crc = this.#headerCrc;
  }

  #fillPayload(chunk: Uint8Array, offset: number): number {
    const count = Math.min(this.#payload.length - this.#payloadFilled, chunk.length - offset);
    if (count === 0) return 0;
    const piece = chunk.subarray(offset, offset + count);
    this.#payload.set(piece, this.#payloadFilled);
    this.#payloadFilled += count;
    this.#crc = crc32(piece, this.#crc);
    return count;
  }

  #complete(): Frame | undefined {
    const header = this.#current;
    if (header === undefined || this.#payloadFilled < header.payloadLength) return undefined;
    if (this.#crc !== header.crc)
      throw new WireError(
        'FrameDamaged',
        `A ${frameTypeName(header.type)} frame of ${header.payloadLength} bytes arrived damaged: its checksum is ${this.#crc}, it should be ${header.crc}.`,
      );
    const crc = { header: this.#headerCrc, whole: this.#crc };
    const frame = { type: header.type, payload: this.#payload, crc };
    this.#current = undefined;
    this.#headerFilled = 0;
    this.#payload = new Uint8Array(0);
    this.#payloadFilled = 0;
    return frame;
  }
}
