import { crc32 } from 'node:zlib';
import { Endpoints } from '../../../dataplane/agent/endpoints.ts';
import { IdentityStore } from '../../../dataplane/agent/identity.ts';
import { AgentStateStore, decodeState, encodeState } from '../../../dataplane/agent/state.ts';
import { FarshoreError } from '../../../platform/errors.ts';
import { ManualClock } from '../../fakes/manualClock.ts';
import { MemoryDisk } from '../../fakes/memoryDisk.ts';
import { silentLogger } from '../../fakes/silentLogger.ts';
import { savedState } from '../../fixtures/savedState.ts';
import { expectOwn, expectSame, type FuzzTarget } from '../target.ts';

async function diskWith(name: string, bytes: Uint8Array): Promise<MemoryDisk> {
  const disk = new MemoryDisk();
  const file = await disk.open(name, 'create');
  await file.write(bytes, 0);
  await file.close();
  return disk;
}

/** What an agent remembers of its tracking. */
export const agentState: FuzzTarget = {
  name: 'agent-state',
  samples: () => [
    encodeState(savedState),
    encodeState({ machineId: 'ab'.repeat(16), bootId: 'b', acknowledgedBarrierLsn: 0n, disks: [] }),
  ],
  run: async (bytes) => {
    try {
      const state = decodeState(bytes);
      expectSame('a state changes', decodeState(encodeState(state)), state);
    } catch (error) {
      expectOwn(error, FarshoreError, /^AgentStateInvalid$/);
    }
    await new AgentStateStore(await diskWith('state', bytes)).load();
    await new AgentStateStore(await diskWith('captured', bytes)).loadCaptured();
  },
  mend: (bytes) => {
    if (bytes.length < 16) return;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    view.setUint32(8, crc32(bytes.subarray(12)), true);
  },
};

const identity = { name: 'db1', machineId: 'ab'.repeat(16), privateKeyPem: 'p' };
const files = {
  'identity.json': { ...identity, certificatePem: 'c', caCertificatePem: 'a' },
  'request.json': { name: 'db1', privateKeyPem: 'p', csrPem: 'c' },
  'boot.json': { bootId: 'b' },
  'endpoints.json': { endpoints: ['10.0.0.1:9443', 'ps.example'] },
};

/** The small files in an agent's state directory. */
export const agentFiles: FuzzTarget = {
  name: 'agent-files',
  samples: () => Object.values(files).map((file) => Buffer.from(JSON.stringify(file))),
  run: async (bytes) => {
    for (const [name, read] of [
      ['identity.json', (store: IdentityStore) => store.identity()],
      ['request.json', (store: IdentityStore) => store.draft()],
      ['boot.json', (store: IdentityStore) => store.protectedInBoot()],
    ] as const)
      try {
        await read(new IdentityStore(await diskWith(name, bytes)));
      } catch (error) {
        expectOwn(error, FarshoreError, /^AgentIdentityDamaged$/);
      }
    const disk = await diskWith('endpoints.json', bytes);
    await Endpoints.open(
      { disk, clock: new ManualClock(), log: silentLogger },
      { configured: ['given:1'], held: () => false },
    );
  },
};
