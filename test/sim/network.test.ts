import { describe, onTestFinished } from 'vitest';
import type { Channel } from '../../platform/ports.ts';
import { channelConformance } from '../conformance/channel.ts';
import { Chance } from './chance.ts';
import { Life } from './life.ts';
import { SimNetwork } from './network.ts';
import { SimTime } from './time.ts';

/** Both ends of a connection in a world whose time passes until the test is over. */
async function connected(): Promise<{ client: Channel; server: Channel }> {
  const time = new SimTime();
  const tap = { connected: () => undefined, wrote: () => undefined };
  const network = new SimNetwork({ time, chance: new Chance(1), tap });
  let over = false;
  onTestFinished(() => {
    over = true;
  });
  const accepted = Promise.withResolvers<Channel>();
  network.listen('server:9443', {
    host: 'server',
    life: new Life(time, 'server'),
    identities: [],
    onChannel: accepted.resolve,
  });
  const life = new Life(time, 'client');
  const connecting = network.connect({
    ...{ endpoint: 'server:9443', host: 'client', life, identities: [] },
  });
  void (async () => {
    while (!over) await time.run({ ms: time.nowMs + 10, done: () => over });
  })();
  return { client: await connecting, server: await accepted.promise };
}

describe('a simulated channel, from the side that connected', () => {
  channelConformance(async () => {
    const { client, server } = await connected();
    return { near: client, far: server };
  });
});

describe('a simulated channel, from the side that listened', () => {
  channelConformance(async () => {
    const { client, server } = await connected();
    return { near: server, far: client };
  });
});
