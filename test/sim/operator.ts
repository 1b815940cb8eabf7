/**
 * The operator's part in the data path: makes the vault and the catalog, says which process server has which machine under which writer
 * epoch, gives the machines of a silent one to another, and asks for a resync when the applier says that only one helps. What it
 * decides and writes is the product's (controllers/, vault/); when it looks is ours.
 */
import { Heartbeats } from '../../controllers/openvaults/heartbeats.ts';
import {
  chooseReplica,
  decideAssignments,
  type MachineIntent,
} from '../../controllers/processserver/assignments.ts';
import { ownedBy } from '../../controllers/protectedvm/catalogEntry.ts';
import type { ObjectStore } from '../../platform/ports.ts';
import { isStoreError } from '../../platform/storeErrors.ts';
import { Catalog } from '../../vault/catalog.ts';
import { VaultControl } from '../../vault/control.ts';
import { endorseRecipients } from '../../vault/controllerTrust.ts';
import { applierStatusSchema } from '../../vault/documents/applierStatus.ts';
import {
  type AssignmentsDocument,
  assignmentsDocumentSchema,
} from '../../vault/documents/assignments.ts';
import type { CatalogDocument } from '../../vault/documents/catalog.ts';
import { decodeDocument, encodeDocument, FORMAT_VERSION } from '../../vault/documents/codec.ts';
import { signedSchema } from '../../vault/documents/signed.ts';
import { vaultDocumentSchema } from '../../vault/documents/vault.ts';
import { type BoxKey, createDataKey, encodePublicKey, generateBoxKey } from '../../vault/keys.ts';
import { vaultLayout } from '../../vault/layout.ts';
import { createRecoveryChallenge } from '../../vault/recoveryCheck.ts';
import { generateRecoveryKey } from '../../vault/recoveryKey.ts';
import { generateSigningKey, type SigningKey, signPayload } from '../../vault/signing.ts';
import type { Chance } from './chance.ts';
import { Life } from './life.ts';
import type { Machine } from './machine.ts';
import type { Server } from './server.ts';
import type { Site } from './site.ts';
import { HostClock } from './time.ts';

const LOOK_MS = 2_500;
const RESYNC_AGAIN_MS = 60_000;
const INSTALLATION = 'ab'.repeat(16);

export class Operator {
  readonly vaultId: string;
  readonly signingKey: SigningKey;
  readonly life: Life;
  readonly clock: HostClock;
  readonly control: VaultControl;
  readonly dataKeys = new Map<string, Uint8Array>();
  readonly #site: Site;
  readonly #chance: Chance;
  readonly #objects: ObjectStore;
  readonly #catalog: Catalog;
  readonly #vaultKey: BoxKey;
  readonly #policy: MachineIntent['policy'];
  readonly #retentionSeconds: number;
  #servers: readonly Server[] = [];
  #machines: readonly Machine[] = [];
  readonly #paused = new Set<string>();
  readonly #tokens = new Map<string, string>();
  readonly #resyncAskedMs = new Map<string, number>();
  readonly #heartbeats = new Heartbeats();
  /** As it was last seen in the catalog. */
  readonly #owners = new Map<string, string>();
  #generation = 0;
  /** Names of Failovers that were deleted: nothing is asked of a source on their behalf (controllers/processserver/duties.ts). */
  readonly deleted = new Set<string>();
  /** Takes the machines of a silent process server away from it. */
  takesOver = true;

  constructor(site: Site, options: { policy: MachineIntent['policy']; retentionSeconds: number }) {
    this.#site = site;
    this.#chance = site.chance.fork();
    this.#policy = options.policy;
    this.#retentionSeconds = options.retentionSeconds;
    this.vaultId = Buffer.from(this.#chance.bytes(16)).toString('hex');
    this.signingKey = generateSigningKey(this.#chance);
    this.#vaultKey = generateBoxKey(this.#chance);
    this.life = new Life(site.time, 'operator');
    this.clock = new HostClock(site.time, 0);
    this.#objects = site.vault.objectsFor(this.life, 'operator');
    this.#catalog = new Catalog({ store: this.#objects });
    this.control = new VaultControl(
      { store: this.#objects, clock: this.clock.for(this.life) },
      { installationId: INSTALLATION, holder: 'sim' },
    );
  }

  /** Before any fault: the vault, and every machine in its catalog. */
  async begin(parts: {
    servers: readonly Server[];
    machines: readonly Machine[];
    applierKey: BoxKey;
  }): Promise<void> {
    this.#servers = parts.servers;
    this.#machines = parts.machines;
    await this.#makeVault();
    await this.control.takeFirst();
    for (const [index, machine] of parts.machines.entries())
      await this.#enter(machine, parts.servers[index % parts.servers.length], parts.applierKey);
    await this.#look();
    void this.#run();
  }

  ownerOf(machineId: string): Server | undefined {
    return this.#servers.find(({ name }) => name === this.#owners.get(machineId));
  }

  pause(machineId: string, paused: boolean): void {
    if (paused) this.#paused.add(machineId);
    else this.#paused.delete(machineId);
  }

  requestResync(machineId: string): void {
    this.#tokens.set(machineId, `token-${this.#chance.word()}`);
  }

  /** Gives a machine to another process server, under a higher writer epoch. */
  async move(machineId: string, options: { from?: string; to?: string } = {}): Promise<void> {
    await this.#catalog.update(machineId, (catalog) => {
      if (catalog.activeSide === 'Azure') return undefined;
      if (options.from !== undefined && catalog.processServer !== options.from) return undefined;
      const others = this.#servers.filter(({ name }) => name !== catalog.processServer);
      const to = options.to ?? this.#chance.pick(others).name;
      return { ...catalog, ...ownedBy(catalog, to) };
    });
  }

  async catalogOf(machineId: string): Promise<CatalogDocument> {
    const found = await this.#catalog.read(machineId);
    if (found === undefined) throw new Error('the machine is in no catalog');
    return found.document;
  }

  async #run(): Promise<void> {
    for (;;) {
      await this.life.sleep(LOOK_MS * this.#chance.between(0.5, 1.5));
      try {
        await this.#look();
      } catch (error) {
        if (!isStoreError(error)) this.#site.time.fail(error);
      }
    }
  }

  async #look(): Promise<void> {
    if (this.takesOver) await this.#takeOverFromSilent();
    await this.#helpUnproven();
    const intents = new Map<string, MachineIntent[]>();
    const keep = new Set<string>();
    const redirects = new Map<string, string>();
    for (const { machineId } of this.#machines) {
      const catalog = await this.catalogOf(machineId);
      const { processServer = '', namespace, name } = catalog;
      redirects.set(machineId, processServer);
      this.#owners.set(machineId, processServer);
      if (catalog.activeSide === 'Azure') {
        keep.add(`${namespace}/${name}`);
        continue;
      }
      const resyncToken = this.#tokens.get(machineId);
      const intent: MachineIntent = {
        catalog: this.#asAsked(catalog),
        paused: this.#paused.has(machineId),
        policy: this.#policy,
        ...(resyncToken === undefined ? {} : { resyncToken }),
      };
      intents.set(processServer, [...(intents.get(processServer) ?? []), intent]);
    }
    for (const server of this.#servers)
      await this.#assign(server, { machines: intents.get(server.name) ?? [], keep, redirects });
  }

  #asAsked(catalog: CatalogDocument): CatalogDocument {
    const { finalSync, ...rest } = catalog;
    return finalSync !== undefined && this.deleted.has(finalSync.failover) ? rest : catalog;
  }

  async #assign(
    server: Server,
    work: {
      machines: MachineIntent[];
      keep: ReadonlySet<string>;
      redirects: ReadonlyMap<string, string>;
    },
  ): Promise<void> {
    const key = vaultLayout.assignments(server.name);
    const stored = await this.#objects.get(key);
    const redirects: Record<string, string[]> = {};
    for (const [machineId, owner] of work.redirects)
      if (owner !== server.name)
        redirects[machineId] = this.#servers
          .filter(({ name }) => name === owner)
          .map(({ endpoint }) => endpoint);
    const { write } = decideAssignments({
      vaultId: this.vaultId,
      processServer: server.name,
      controllerEpoch: 1,
      caCertificatePem: 'sim',
      machines: work.machines,
      keep: work.keep,
      redirects,
      peers: this.#servers
        .filter(({ name }) => name !== server.name)
        .map(({ endpoint }) => endpoint),
      bandwidth: undefined,
      current: stored && currentOf(key, stored.body),
      generationFloor: this.#generation,
      confirmedToken: undefined,
    });
    if (write === undefined) return;
    this.#generation = Math.max(this.#generation, write.generation);
    const payload = new TextDecoder().decode(encodeDocument(assignmentsDocumentSchema, write));
    const body = encodeDocument(signedSchema, signPayload(this.signingKey, payload));
    if (stored === undefined) await this.#objects.putIfAbsent(key, body);
    else await this.#objects.replace(key, body, { etag: stored.etag });
  }

  async #takeOverFromSilent(): Promise<void> {
    const replicas = this.#servers.map(({ name }) => name);
    for (const name of replicas) {
      const stored = await this.#objects.get(vaultLayout.processServerStatus(name));
      if (stored !== undefined) this.#heartbeats.note(name, stored.lastModified);
    }
    const vaultNowMs = await this.#objects.serverTime();
    const load = new Map<string, number>();
    for (const owner of this.#owners.values()) load.set(owner, (load.get(owner) ?? 0) + 1);
    for (const { machineId } of this.#machines) {
      const { processServer: current } = await this.catalogOf(machineId);
      const replica = chooseReplica({
        ...{ replicas, current, load },
        isSilent: (name) => this.#heartbeats.isSilent(name, vaultNowMs),
        isSteady: (name) => this.#heartbeats.isSteady(name, vaultNowMs),
      });
      if (current === undefined || replica === undefined || replica === current) continue;
      this.#site.counted('takeover of a silent server');
      await this.move(machineId, { from: current, to: replica });
    }
  }

  /** The applier's message says: request a resync. */
  async #helpUnproven(): Promise<void> {
    const key = vaultLayout.applierStatus('applier');
    const stored = await this.#objects.get(key);
    if (stored === undefined) return;
    const nowMs = this.#site.time.nowMs;
    for (const { machineId, error } of decodeDocument(applierStatusSchema, key, stored.body)
      .machines) {
      if (error?.code !== 'BarrierRootMismatch') continue;
      const asked = this.#resyncAskedMs.get(machineId) ?? Number.NEGATIVE_INFINITY;
      if (nowMs - asked < RESYNC_AGAIN_MS) continue;
      this.#resyncAskedMs.set(machineId, nowMs);
      this.#site.counted('resync of an unproven machine');
      this.requestResync(machineId);
    }
  }

  /** As vault/vault.ts makes it, but for the certificate authority, which works in other threads. */
  async #makeVault(): Promise<void> {
    const random = this.#chance;
    const recoveryRecipients = [generateRecoveryKey(random).publicString];
    const { vaultId, signingKey } = this;
    await this.#objects.putIfAbsent(
      vaultLayout.vault,
      encodeDocument(vaultDocumentSchema, {
        formatVersion: FORMAT_VERSION,
        vaultId,
        createdAt: this.clock.now(),
        vaultKey: { id: this.#vaultKey.id, publicKey: encodePublicKey(this.#vaultKey.publicKey) },
        recoveryRecipients,
        controllerKeys: [{ publicKey: signingKey.publicKey, installationId: INSTALLATION }],
        recipientLists: [
          endorseRecipients({ endorser: signingKey, vaultId, recipients: recoveryRecipients }),
        ],
        ca: { certificatePem: 'sim', key: [] },
        recoveryChallenge: createRecoveryChallenge({ random, vaultId, recoveryRecipients }),
      }),
    );
  }

  async #enter(machine: Machine, server: Server | undefined, applierKey: BoxKey): Promise<void> {
    const { machineId, name } = machine;
    const { dataKey, sealed } = createDataKey({
      random: this.#chance,
      vaultId: this.vaultId,
      machineId,
      recipients: [
        ...this.#servers.map(
          ({ key }) => ({ kind: 'processserver', publicKey: key.publicKey }) as const,
        ),
        { kind: 'applier', publicKey: applierKey.publicKey },
      ],
    });
    this.dataKeys.set(machineId, dataKey);
    await this.#catalog.create({
      machineId,
      name,
      namespace: 'default',
      createdAt: this.clock.now(),
      writerEpoch: 1,
      ...(server === undefined ? {} : { processServer: server.name }),
      disks: machine.disks.map((disk) => ({
        index: disk.index,
        name: disk.name,
        device: disk.path,
        sizeBytes: 0,
      })),
      dataKey: sealed,
      activeSide: 'Source',
      policy: { name: 'standard', retentionSeconds: this.#retentionSeconds },
      target: {},
    });
  }
}

function currentOf(key: string, bytes: Uint8Array): AssignmentsDocument {
  const { payload } = decodeDocument(signedSchema, key, bytes);
  return decodeDocument(assignmentsDocumentSchema, key, new TextEncoder().encode(payload));
}
