import { describe } from 'vitest';
import { channelConformance } from '../conformance/channel.ts';
import { anonymous, channelPair } from './channel.ts';

describe('a FakeChannel', () => {
  channelConformance(async () => {
    const { a, b } = channelPair({ peerOfA: anonymous, peerOfB: anonymous }, { lingerMs: 50 });
    return { near: a, far: b };
  });
});
