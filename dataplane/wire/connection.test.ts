import { describe, expect, test } from 'vitest';
import { anonymous, channelPair, verified } from '../../test/fakes/channel.ts';
import { ManualClock } from '../../test/fakes/manualClock.ts';
import { Connection, framesFrom, IDLE_TIMEOUT_MS } from './connection.ts';
import { encodeControl } from './encoder.ts';
import { FrameType, RefusalCode } from './messages.ts';

function pair(options: { stranger?: boolean } = {}) {
  const clock = new ManualClock();
  const channels = channelPair({
    peerOfA: verified('farshore:processserver:ps1'),
    peerOfB: anonymous,
  });
  const agent = new Connection({
    channel: channels.a,
    clock,
    accepts: framesFrom.processServer,
  });
  const server = new Connection({
    channel: channels.b,
    clock,
    accepts: options.stranger ? framesFrom.stranger : framesFrom.agent,
  });
  return { clock, channels, agent, server };
}

const status = {
  capturedLsn: 1n,
  disks: [],
  dirtyBytes: 0,
  errors: [],
};

describe('a connection', () => {
  test('carries control messages, data, asks and answers both ways, in order', async () => {
    const { agent, server } = pair();
    await agent.send(FrameType.AgentStatus, status);
    await agent.sendData({
      firstLsn: 5n,
      count: 1,
      records: [new Uint8Array(8), new Uint8Array(8)],
    });
    await agent.sendAsk({ askId: 1, disk: 0, firstLeaf: 2, hashes: new Uint8Array(32) });
    await server.sendAnswer({ askId: 1, codes: Uint8Array.of(2) });
    expect(await server.receive()).toEqual({ type: FrameType.AgentStatus, message: status });
    expect(await server.receive()).toMatchObject({
      type: FrameType.Data,
      data: { firstLsn: 5n, count: 1, records: { length: 16 } },
    });
    expect(await server.receive()).toMatchObject({ ask: { askId: 1, disk: 0, firstLeaf: 2 } });
    expect(await agent.receive()).toMatchObject({ answer: { askId: 1 } });
    expect(server.traffic.received).toBe(agent.traffic.sent);
  });

  test('ends without an error when the peer ends it between frames', async () => {
    const { agent, server } = pair();
    await agent.send(FrameType.AgentStatus, status);
    await agent.close();
    expect(await server.receive()).toMatchObject({ type: FrameType.AgentStatus });
    expect(await server.receive()).toBeUndefined();
    expect(server.failure).toBeUndefined();
    expect(await agent.receive()).toBeUndefined();
    await expect(agent.send(FrameType.AgentStatus, status)).rejects.toMatchObject({
      code: 'ConnectionClosed',
    });
  });

  test('fails with FrameCut when the peer ends it inside a frame', async () => {
    const { agent, server, channels } = pair();
    channels.a.tamper = (bytes) => bytes.subarray(0, bytes.length - 1);
    await agent.send(FrameType.AgentStatus, status);
    await agent.close();
    await expect(server.receive()).rejects.toMatchObject({ code: 'FrameCut' });
    expect(channels.b.destroyed).toBe(true);
  });

  test('fails with FrameDamaged when a byte was flipped, and says so again to whoever asks', async () => {
    const { agent, server, channels } = pair();
    channels.a.tamper = (bytes) => {
      const flipped = Uint8Array.from(bytes);
      flipped[20] = (flipped[20] ?? 0) ^ 1;
      return flipped;
    };
    await agent.send(FrameType.AgentStatus, status);
    await expect(server.receive()).rejects.toMatchObject({ code: 'FrameDamaged' });
    await expect(server.receive()).rejects.toMatchObject({ code: 'FrameDamaged' });
    await expect(server.send(FrameType.Heartbeat, { timeMs: 1 })).rejects.toMatchObject({
      code: 'FrameDamaged',
    });
  });

  test('still delivers what came whole before the damage', async () => {
    const { agent, server, channels } = pair();
    await agent.send(FrameType.AgentStatus, status);
    channels.a.tamper = () => Buffer.alloc(12, 0xff);
    await agent.send(FrameType.AgentStatus, status);
    expect(await server.receive()).toMatchObject({ type: FrameType.AgentStatus });
    await expect(server.receive()).rejects.toMatchObject({ code: 'FrameUnknown' });
  });

  test('tells a peer that broke the protocol why it was dropped', async () => {
    const { clock, channels, agent } = pair();
    const server = new Connection({
      channel: channels.b,
      clock,
      accepts: framesFrom.agent,
      farewell: (error) =>
        encodeControl(FrameType.Refused, {
          code: RefusalCode.ProtocolBroken,
          message: error.code,
          retryAfterMs: 0,
        }),
    });
    channels.a.tamper = (bytes) => bytes.fill(0xff, 0, 4);
    await agent.send(FrameType.AgentStatus, status);
    await expect(server.receive()).rejects.toMatchObject({ code: 'FrameTooLong' });
    expect(await agent.receive()).toMatchObject({ message: { message: 'FrameTooLong' } });
    expect(await agent.receive()).toBeUndefined();
  });

  test('takes from a stranger nothing but enrolment and Hello', async () => {
    const { agent, server } = pair({ stranger: true });
    await agent.sendData({ firstLsn: 1n, count: 1, records: [new Uint8Array(16)] });
    await expect(server.receive()).rejects.toMatchObject({ code: 'FrameUnexpected' });
  });

  test('takes the frames of an agent once it is told to', async () => {
    const { agent, server } = pair({ stranger: true });
    server.accept(framesFrom.agent);
    await agent.sendData({ firstLsn: 1n, count: 1, records: [new Uint8Array(16)] });
    expect(await server.receive()).toMatchObject({ type: FrameType.Data });
  });

  test('fails with PeerSilent after 30 s in which nothing came', async () => {
    const { clock, server } = pair();
    const received = server.receive();
    const outcome = expect(received).rejects.toMatchObject({ code: 'PeerSilent' });
    await clock.advance(IDLE_TIMEOUT_MS + 5_000);
    await outcome;
  });

  test('does not call a peer silent while we ourselves do not listen', async () => {
    const { clock, agent, server } = pair();
    await agent.send(FrameType.AgentStatus, status);
    await clock.advance(5 * IDLE_TIMEOUT_MS);
    expect(await server.receive()).toMatchObject({ type: FrameType.AgentStatus });
  });

  test('counts any bytes as a sign of life', async () => {
    const { clock, agent, server } = pair();
    for (let round = 0; round < 5; round += 1) {
      const received = server.receive();
      await clock.advance(IDLE_TIMEOUT_MS - 5_000);
      await agent.send(FrameType.AgentStatus, status);
      expect(await received).toMatchObject({ type: FrameType.AgentStatus });
    }
  });

  test('waits for a peer that does not read, then fails with PeerStuck', async () => {
    const { clock, agent } = pair();
    const big = { firstLsn: 1n, count: 1, records: [new Uint8Array(1 << 20)] };
    let settled = false;
    const sent = agent.sendData(big).finally(() => {
      settled = true;
    });
    const outcome = expect(sent).rejects.toMatchObject({ code: 'PeerStuck' });
    await clock.advance(IDLE_TIMEOUT_MS - 5_000);
    expect(settled).toBe(false);
    await clock.advance(10_000);
    await outcome;
  });

  test('leaves no sleeper behind once it ended', async () => {
    const { clock, agent, server } = pair();
    await agent.close();
    expect(await server.receive()).toBeUndefined();
    await clock.advance(0);
    expect(clock.sleeping).toBe(0);
  });
});
