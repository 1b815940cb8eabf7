import { FrameDecoder } from '../../../dataplane/wire/decoder.ts';
import {
  decodeMessage,
  encodeAnswer,
  encodeAsk,
  encodeControl,
  encodeData,
  type Received,
} from '../../../dataplane/wire/encoder.ts';
import { WireError } from '../../../dataplane/wire/errors.ts';
import { FRAME_HEADER_SIZE, frameCrc } from '../../../dataplane/wire/frame.ts';
import { FrameType } from '../../../dataplane/wire/messages.ts';
import { wireSamples } from '../../golden/wire/samples.ts';
import { expectOwn, expectSame, type FuzzTarget } from '../target.ts';

/** A connection's bytes, from either side. */
export const wire: FuzzTarget = {
  name: 'wire',
  samples: () => Object.values(wireSamples).map((parts) => Buffer.concat(parts)),
  run: (bytes) => {
    try {
      for (const message of decodeAll(bytes)) comesBack(message);
    } catch (error) {
      expectOwn(
        error,
        WireError,
        /^(FrameDamaged|FrameTooLong|FrameUnknown|FrameCut|MessageInvalid)$/,
      );
    }
  },
  mend: (bytes) => {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    for (let at = 0; at + FRAME_HEADER_SIZE <= bytes.length; ) {
      const end = at + FRAME_HEADER_SIZE + view.getUint32(at, true);
      if (end > bytes.length) return;
      const payload = bytes.subarray(at + FRAME_HEADER_SIZE, end);
      view.setUint32(at + 8, frameCrc(bytes.subarray(at, at + 8), [payload]), true);
      at = end;
    }
  },
};

export function decodeAll(bytes: Uint8Array): Received[] {
  const decoder = new FrameDecoder();
  const messages = decoder.push(bytes).map(decodeMessage);
  decoder.end();
  return messages;
}

/** What was read, written and read again, is the same. */
export function comesBack(received: Received): void {
  const [again] = decodeAll(Buffer.concat(encode(received)));
  expectSame('a message changes when it is sent on', again, received);
}

function encode(received: Received): Uint8Array[] {
  switch (received.type) {
    case FrameType.Data:
      return encodeData({ ...received.data, records: [received.data.records] });
    case FrameType.Ask:
      return encodeAsk(received.ask);
    case FrameType.Answer:
      return encodeAnswer(received.answer);
    default:
      return encodeControl(received.type, received.message as never);
  }
}
