/**
 * A process server that takes and forgets: nullProcessServer.ts --bootstrap FILE --cache DIR, a process of its own that ends by a signal.
 *
 * Sessions, credit, barriers and status are the product's. Behind them there is no cache and no segment: what came is durable and
 * uploaded at once, and whatever an agent asks about, the vault has already. So it costs what receiving the bytes costs, as far as the
 * machine is concerned that a process server on another machine protects.
 */
import { mkdir, readFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import type { OpenMachineOptions } from '../../dataplane/journal/machineJournal.ts';
import { ProcessServer } from '../../dataplane/processserver/processServer.ts';
import { establishIdentity } from '../../dataplane/processserver/serverIdentity.ts';
import { AnswerCode } from '../../dataplane/wire/messages.ts';
import { openVaultStores } from '../../platform/azure/vaultStores.ts';
import { systemClock } from '../../platform/node/clock.ts';
import { openDisk } from '../../platform/node/disk.ts';
import { createLogger } from '../../platform/node/logger.ts';
import { systemRandom } from '../../platform/node/random.ts';
import { listenTls } from '../../platform/node/tls.ts';
import { decodeBootstrap } from '../../vault/bootstrap.ts';
import { FakeJournal, FakeJournalCache } from '../fakes/fakeJournal.ts';

/** How old what is "uploaded" may get. */
const UPLOAD_MS = 200;

class ForgetfulJournal extends FakeJournal {
  override async ask(question: { hashes: Uint8Array }): Promise<Uint8Array> {
    return new Uint8Array(question.hashes.length / 32).fill(AnswerCode.SameUploaded);
  }

  forget(): void {
    this.batches.length = 0;
    this.upload();
  }
}

class ForgetfulCache extends FakeJournalCache {
  override async openMachine(options: OpenMachineOptions): Promise<FakeJournal> {
    const journal = new ForgetfulJournal(options, this.journals.get(options.machineId));
    this.journals.set(options.machineId, journal);
    setInterval(() => journal.forget(), UPLOAD_MS).unref();
    return journal;
  }
}

const { values } = parseArgs({
  options: {
    bootstrap: { type: 'string', default: '' },
    cache: { type: 'string', default: '' },
    'metrics-port': { type: 'string' },
    'metrics-host': { type: 'string' },
  },
});
const logger = createLogger({ name: 'processserver' });
const world = { clock: systemClock, random: systemRandom, logger };
const bootstrap = decodeBootstrap(await readFile(values.bootstrap, 'utf8'));
const { container, prefix, connectionString = '' } = bootstrap.vault;
const { objects } = openVaultStores(world, { container, prefix, connectionString });
await mkdir(values.cache, { recursive: true });
const disk = openDisk(values.cache);
const stop = new AbortController();
process.once('SIGTERM', () => stop.abort());
const { name, vaultId, token, port, endpoints, controllerPublicKey: pinnedKey } = bootstrap;
const identity = await establishIdentity(
  { ...world, objects, disk },
  { name, token, signal: stop.signal },
);
const server = await ProcessServer.start(
  { ...world, store: objects, disk, cache: new ForgetfulCache(), listen: listenTls },
  { name, version: 'null', vaultId, pinnedKey, identity, port, endpoints },
);
await server.run(stop.signal);
process.exit();
