/** What a guest with the agent inside replicates to: a real vault and process server on this machine, and the points made of it. */
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Replica } from '../../../dataplane/journal/replica.ts';
import { ensureVaultContainer, openVaultStores } from '../../../platform/azure/vaultStores.ts';
import { systemClock } from '../../../platform/node/clock.ts';
import { systemRandom } from '../../../platform/node/random.ts';
import type { DiskSpec } from '../../../vault/documents/diskSpec.ts';
import type { MachineStatus } from '../../../vault/documents/machineStatus.ts';
import type { PointDocument } from '../../../vault/documents/point.ts';
import { ScriptedOperator } from '../../fakes/scriptedOperator.ts';
import { silentLogger } from '../../fakes/silentLogger.ts';
import { type Azurite, startAzurite } from '../../servers/azurite.ts';
import { ProcessServerProcess } from '../../servers/processServerProcess.ts';

const deps = { clock: systemClock, random: systemRandom };
const PROCESS_SERVER = 'ps1';
const CONTAINER = 'vault';
const READ_BYTES = 4 << 20;
export const MACHINE = 'guest';

export interface WantedDisk {
  index: number;
  name: string;
  device: string;
}

type Stores = ReturnType<typeof openVaultStores>;

export class World {
  readonly directory: string;
  readonly passphrase: string;
  readonly #azurite: Azurite;
  readonly #stores: Stores;
  readonly #operator: ScriptedOperator;
  readonly #machineId: string;
  readonly #server: ProcessServerProcess;
  readonly #atWork = new AbortController();
  readonly #working: Promise<void>;
  #disks: DiskSpec[] = [];
  #final: { failover: string; powerOff: boolean } | undefined;

  private constructor(parts: {
    directory: string;
    azurite: Azurite;
    stores: Stores;
    operator: ScriptedOperator;
    server: ProcessServerProcess;
  }) {
    this.directory = parts.directory;
    this.#azurite = parts.azurite;
    this.#stores = parts.stores;
    this.#operator = parts.operator;
    this.#server = parts.server;
    this.passphrase = parts.operator.passphrase;
    this.#machineId = parts.operator.addMachine(MACHINE);
    this.#working = this.#answerEnrolments();
  }

  static async create(): Promise<World> {
    const directory = mkdtempSync(path.join(tmpdir(), 'farshore-guest-'));
    const azurite = await startAzurite();
    try {
      const access = { connectionString: azurite.connectionString, container: CONTAINER };
      await ensureVaultContainer(deps, access);
      const stores = openVaultStores(deps, access);
      const operator = await ScriptedOperator.create({ ...deps, store: stores.objects });
      const server = await ProcessServerProcess.start({
        directory,
        bootstrap: {
          name: PROCESS_SERVER,
          vault: { container: CONTAINER, prefix: '', connectionString: azurite.connectionString },
          vaultId: operator.vault.vaultId,
          controllerPublicKey: operator.signingKey.publicKey,
          token: operator.token,
        },
      });
      const world = new World({ directory, azurite, stores, operator, server });
      await server.port().catch(async (error) => {
        await world.remove();
        throw error;
      });
      return world;
    } catch (error) {
      await azurite.stop();
      throw error;
    }
  }

  async port(): Promise<number> {
    return await this.#server.port();
  }

  /** Which disks the machine is to send, as the operator says it. */
  async protect(disks: readonly WantedDisk[]): Promise<void> {
    this.#disks = disks.map((disk) => ({ ...disk, sizeBytes: 0 }));
    await this.#assign();
  }

  /** A last barrier, after which the machine stays frozen. Resolves with its LSN once it is in the vault. */
  async askForFinal(failover: string, options: { timeoutMs: number }): Promise<bigint> {
    this.#final = { failover, powerOff: false };
    await this.#assign();
    const { finalBarrier } = await this.statusWhen(
      `the final barrier of ${failover}`,
      (status) => status.finalBarrier?.failover === failover,
      options,
    );
    if (finalBarrier === undefined) throw new Error('no final barrier');
    return finalBarrier.lsn;
  }

  async cancelFinal(): Promise<void> {
    this.#final = undefined;
    await this.#assign();
  }

  async status(): Promise<MachineStatus | undefined> {
    const status = await this.#operator.status(PROCESS_SERVER);
    return status?.machines.find(({ machineId }) => machineId === this.#machineId);
  }

  /** The machine's status, as the operator reads it, once it fulfils the condition. */
  async statusWhen(
    what: string,
    condition: (status: MachineStatus) => boolean,
    options: { timeoutMs?: number } = {},
  ): Promise<MachineStatus> {
    const deadline = performance.now() + (options.timeoutMs ?? 80_000);
    for (;;) {
      const status = await this.status();
      if (status !== undefined && condition(status)) return status;
      if (performance.now() > deadline)
        throw new Error(`never came true: ${what}. The status: ${text(status)}`);
      await systemClock.sleep(200);
    }
  }

  /** So many more barriers are in the vault, and no resync is left. */
  async moreBarriers(count: number, options: { timeoutMs?: number } = {}): Promise<MachineStatus> {
    const before = (await this.status())?.barriers.count ?? 0;
    return await this.statusWhen(
      `${count} more barriers than ${before}`,
      ({ barriers, uploadedBarrier, resync }) =>
        barriers.count >= before + count && uploadedBarrier !== undefined && resync === undefined,
      options,
    );
  }

  /** Applies the journal up to this barrier and writes each disk of its point to a raw file: path by disk name. */
  async recover(lsn: bigint): Promise<{ point: PointDocument; files: Map<string, string> }> {
    const { objects, pages } = this.#stores;
    const replica = await Replica.open(
      { objects, pages, clock: systemClock, logger: silentLogger },
      {
        machineId: this.#machineId,
        disks: this.#disks,
        dataKey: this.#operator.dataKey(this.#machineId),
        holder: 'recovery:test',
      },
    );
    try {
      const { point } = await replica.applyTo({ lsn }, { makePoints: true });
      if (point?.lsn !== lsn) throw new Error(`no point at ${lsn}`);
      const files = new Map<string, string>();
      for (const disk of point.disks) files.set(disk.name, await this.#write(disk, lsn));
      return { point, files };
    } finally {
      await replica.close();
    }
  }

  async remove(): Promise<void> {
    this.#atWork.abort();
    await this.#working;
    await this.#server.kill('SIGKILL');
    await this.#azurite.stop();
    rmSync(this.directory, { recursive: true, force: true });
  }

  async #write(disk: PointDocument['disks'][number], lsn: bigint): Promise<string> {
    const { pages } = this.#stores;
    const { key, snapshot } = disk.replica;
    const file = path.join(this.directory, `${disk.name}-${lsn}.raw`);
    const target = openSync(file, 'w');
    try {
      ftruncateSync(target, disk.sizeBytes);
      for await (const range of pages.ranges(key, { snapshot })) {
        const end = Math.min(range.offset + range.length, disk.sizeBytes);
        for (let offset = range.offset; offset < end; offset += READ_BYTES) {
          const length = Math.min(READ_BYTES, end - offset);
          writeSync(
            target,
            await pages.read(key, { offset, length }, { snapshot }),
            0,
            length,
            offset,
          );
        }
      }
    } finally {
      closeSync(target);
    }
    return file;
  }

  async #assign(): Promise<void> {
    await this.#operator.assign(PROCESS_SERVER, [
      {
        machineId: this.#machineId,
        name: MACHINE,
        disks: this.#disks,
        // More often, an emulated machine would do nothing else.
        policy: { crashConsistentSeconds: 4, appConsistentSeconds: 0 },
        ...(this.#final === undefined ? {} : { finalSync: this.#final }),
      },
    ]);
  }

  async #answerEnrolments(): Promise<void> {
    const { signal } = this.#atWork;
    while (!signal.aborted) {
      await this.#operator.answerEnrolments().catch(() => undefined);
      await systemClock.sleep(100, signal).catch(() => undefined);
    }
  }
}

function text(status: unknown): string {
  return JSON.stringify(status, (_, value) => (typeof value === 'bigint' ? String(value) : value));
}
