/**
 * What must hold, checked from outside: what agents and process servers say to each other, what takes effect in the vault, and what the
 * source's disks held at each freeze. Contents are compared byte for byte, without the product's hashes. Names of invariants are those of
 * docs/INVARIANTS.md.
 */
import { inlineCodec } from '../../dataplane/journal/segmentCodec.ts';
import type { FailoverDocument } from '../../vault/documents/failover.ts';
import { sequenceOfSegmentKey, vaultLayout } from '../../vault/layout.ts';
import { ManualClock } from '../fakes/manualClock.ts';
import type { MemoryCompute } from '../fakes/memoryCompute.ts';
import { MemoryObjectStore } from '../fakes/memoryObjectStore.ts';
import { Acknowledgements } from './acknowledgements.ts';
import { ChainWatch } from './chainWatch.ts';
import { failoverDisks, HeldWatch } from './heldWatch.ts';
import { compareImages } from './images.ts';
import { journalBreaches } from './journalCheck.ts';
import type { Frozen } from './kernel.ts';
import type { Machine } from './machine.ts';
import type { Connection, Tap } from './network.ts';
import { PointWatch } from './pointWatch.ts';
import type { Server } from './server.ts';
import type { SimTime } from './time.ts';
import type { SimVault, VaultWatch } from './vault.ts';
import { type Spoken, spokenIn } from './wireTap.ts';

export interface Breach {
  invariant: string;
  /** Virtual milliseconds since the run began. */
  at: number;
  detail: string;
}

/** A barrier that an agent sent: what the disks held then. */
export interface Candidate {
  frozen: Frozen;
  /** As the process server was asked to stamp it. */
  timeMs: number | undefined;
}

export class Oracle implements Tap, VaultWatch {
  readonly breaches: Breach[] = [];
  /** Told of the machine whose barrier is being acknowledged. */
  atAcknowledgement: ((machineId: string) => void) | undefined;
  /** Told of the machine that sends data. */
  atData: ((machineId: string) => void) | undefined;
  /** Told of the machine whose failover has its last barrier, and nothing else yet. */
  atFinalSync: ((machineId: string) => void) | undefined;
  readonly #time: SimTime;
  readonly #machines = new Map<string, Machine>();
  #servers: readonly Server[] = [];
  readonly #candidates = new Map<string, Candidate[]>();
  readonly #chains: ChainWatch;
  readonly #points: PointWatch;
  readonly #acknowledgements: Acknowledgements;
  readonly #held: HeldWatch;
  /** Per connection: the writer epoch of its Welcome, and the times that were given to barriers. */
  readonly #sessions = new Map<number, { writerEpoch: number; times: Map<number, number> }>();
  /** Highest LSN that the agent of a machine ever gave to a record. */
  readonly #captured = new Map<string, bigint>();
  readonly #inAzure = new Set<string>();
  /** Process server and machine: found damaged, and the agent has not heard of it. */
  readonly #damaged = new Set<string>();

  constructor(time: SimTime, vaultOf: () => SimVault) {
    this.#time = time;
    const found = (invariant: string, detail: string) => this.breach(invariant, detail);
    this.#chains = new ChainWatch({ breach: found, nowMs: () => time.nowMs });
    this.#points = new PointWatch({
      breach: found,
      pages: () => vaultOf().pages,
      machine: (machineId) => this.#machines.get(machineId),
      candidates: (machineId, lsn) => this.candidates(machineId, lsn),
      fail: (error) => time.fail(error),
    });
    const isInAzure = (machineId: string) => this.isInAzure(machineId);
    const lostAtMs = (server: string) => this.#lostAtMs(server);
    this.#acknowledgements = new Acknowledgements({ chains: this.#chains, isInAzure, lostAtMs });
    this.#held = new HeldWatch({
      breach: found,
      nowMs: () => time.nowMs,
      candidates: (machineId, lsn) => this.candidates(machineId, lsn),
      isInVault: (machineId, barrier) => this.#chains.holds(machineId, barrier),
      isInAzure,
    });
  }

  begin(parts: { machines: readonly Machine[]; servers: readonly Server[] }): void {
    for (const machine of parts.machines) this.#machines.set(machine.machineId, machine);
    this.#servers = parts.servers;
    this.#held.begin(parts.machines);
  }

  /** No fault comes any more. */
  calm(): void {
    this.#held.calm();
  }

  breach(invariant: string, detail: string): void {
    this.#time.note(`breach ${invariant} ${detail}`);
    this.breaches.push({ invariant, at: Math.round(this.#time.nowMs), detail });
  }

  candidates(machineId: string, lsn: bigint): readonly Candidate[] {
    return this.#candidates.get(`${machineId}/${lsn}`) ?? [];
  }

  /** When the newest point's disks were frozen; undefined when there is none. */
  newestPointFrozenMs(machineId: string): number | undefined {
    return this.#points.newest(machineId)?.frozenMs;
  }

  get pointCount(): number {
    return [...this.#machines.keys()].reduce(
      (sum, machineId) => sum + this.#points.lsns(machineId).length,
      0,
    );
  }

  /** A bit of a process server's volume was flipped. */
  get hasRotted(): boolean {
    return this.#servers.some(({ rotted }) => rotted);
  }

  isInAzure(machineId: string): boolean {
    return this.#inAzure.has(machineId);
  }

  /** Looked at again and again: what no single event shows. */
  look(): void {
    this.#held.look();
  }

  // ---------------------------------------------------------------------------------------------------- conversations

  connected(connection: Connection): void {
    this.#sessions.set(connection.id, { writerEpoch: 0, times: new Map() });
  }

  wrote(connection: Connection, by: 'client' | 'server', bytes: Uint8Array): void {
    const spoken = spokenIn(bytes);
    if (spoken === undefined) return;
    const machine = this.#machineOf(connection);
    if (machine === undefined) return;
    if (by === 'client') this.#agentSaid(machine, connection, spoken);
    else this.#serverSaid(machine, connection, spoken);
  }

  #machineOf(connection: Connection): Machine | undefined {
    for (const machine of this.#machines.values())
      if (machine.host === connection.client.host) return machine;
    return undefined;
  }

  #agentSaid(machine: Machine, connection: Connection, spoken: Spoken): void {
    const { machineId } = machine;
    if (spoken.kind === 'Data') {
      this.#noteCaptured(machineId, spoken.lastLsn);
      this.atData?.(machineId);
    }
    if (spoken.kind === 'AgentStatus') this.#held.agentSaid(machineId, spoken.standsStillFor);
    if (spoken.kind !== 'Barrier') return;
    this.#noteCaptured(machineId, spoken.lsn);
    const { frozen } = machine.kernel;
    if (frozen === undefined) {
      this.breach('5', `${machine.name} sent a barrier and never froze`);
      return;
    }
    const key = `${machineId}/${spoken.lsn}`;
    const timeMs = this.#sessions.get(connection.id)?.times.get(spoken.id);
    const before = this.#candidates.get(key) ?? [];
    this.#candidates.set(key, [...before, { frozen, timeMs }]);
    this.#held.barrierSent(frozen, { lsn: spoken.lsn, askedMs: timeMs });
  }

  /** A process server says that what it had of a machine is damaged. */
  damageFound(server: string, machineId: string): void {
    this.#damaged.add(`${server} ${machineId}`);
  }

  /** Its volume is gone with all that it knew. */
  volumeLost(server: string): void {
    for (const key of this.#damaged) if (key.startsWith(`${server} `)) this.#damaged.delete(key);
  }

  /** It gave the machine away with all that it had of it: whoever has it next builds on the vault, as anybody who takes over. */
  knowsNothingOf(server: string, machineId: string): void {
    this.#damaged.delete(`${server} ${machineId}`);
  }

  #welcomed(machine: Machine, server: string, welcome: { asksForResync: boolean }): void {
    if (!this.#damaged.delete(`${server} ${machine.machineId}`) || welcome.asksForResync) return;
    this.breach('6', `${server} lost what it had of ${machine.name}, and asks for no resync`);
  }

  #noteCaptured(machineId: string, lsn: bigint): void {
    if (lsn > (this.#captured.get(machineId) ?? 0n)) this.#captured.set(machineId, lsn);
  }

  #serverSaid(machine: Machine, connection: Connection, spoken: Spoken): void {
    const { machineId } = machine;
    const session = this.#sessions.get(connection.id);
    if (session === undefined) return;
    switch (spoken.kind) {
      case 'Welcome':
        session.writerEpoch = spoken.writerEpoch;
        this.#welcomed(machine, connection.server.host, spoken);
        if (spoken.asksForResync) this.#held.resyncDemanded(machineId);
        return;
      case 'BarrierPrepare':
        this.#held.prepared(connection.id, spoken);
        return;
      case 'BarrierFreeze':
        session.times.set(spoken.id, spoken.timeMs);
        this.#held.freezeAsked(machine, connection.id, spoken.id);
        return;
      case 'BarrierAcknowledged':
        this.#acknowledgements.add({
          machineId,
          lsn: spoken.lsn,
          askedMs: session.times.get(spoken.id),
          server: connection.server.host,
          writerEpoch: session.writerEpoch,
          atMs: this.#time.nowMs,
        });
        this.atAcknowledgement?.(machineId);
        return;
      case 'Uploaded': {
        const { uploadedLsn, barrierLsn } = spoken;
        if (uploadedLsn > this.#chains.endLsn(machineId))
          this.breach('1', `${machine.name}: LSN ${uploadedLsn} is told as uploaded and is not`);
        if (barrierLsn > 0n && !this.#chains.holdsBarrier(machineId, barrierLsn))
          this.breach('1', `${machine.name}: barrier ${barrierLsn} is told as uploaded and is not`);
        return;
      }
    }
  }

  // ------------------------------------------------------------------------------------------------------------ vault

  objectTried(key: string, body: Uint8Array, by: string): void {
    if (!isSegment(key)) return;
    this.#chains.tried(key, body, { by, lostAtMs: this.#lostAtMs(by) });
  }

  objectPut(key: string, body: Uint8Array): void {
    if (isSegment(key)) this.#chains.added(key, body);
    else if (key.endsWith('.damaged')) this.breach('5', `nothing rots there, and ${key} says so`);
    else if (key.startsWith('points/')) this.#pointPut(key, body);
    else if (key.endsWith('/state.json')) this.#stateSaved(body);
    else if (key.startsWith('control/status/processserver-')) this.#statusPut(body);
    else if (key.startsWith('control/status/applier-')) this.#applierStatusPut(body);
    else if (key.startsWith('catalog/')) this.#catalogPut(body);
    else if (key.startsWith('control/failovers/')) this.#ledgerPut(body);
    else if (key.startsWith('control/assignments/')) this.#held.listPut(body);
  }

  objectRemoved(key: string): void {
    if (key.startsWith('points/')) this.#points.removed(key);
    if (isSegment(key)) this.#chains.trimmed(key);
  }

  snapshotRemoved(key: string, snapshot: string): void {
    this.#points.snapshotRemoved(key, snapshot);
  }

  #pointPut(key: string, body: Uint8Array): void {
    const added = this.#points.put(key, body);
    if (added === undefined) return;
    const { machineId, lsn } = added;
    if (!this.#chains.holdsBarrier(machineId, lsn))
      this.breach('5', `a point at LSN ${lsn} of ${machineId}, where the journal has no barrier`);
    const applied = this.#chains.appliedLsn(machineId);
    if (lsn > applied) this.breach('positions', `a point at ${lsn}, applied up to ${applied}`);
  }

  #stateSaved(body: Uint8Array): void {
    const state = JSON.parse(new TextDecoder().decode(body)) as {
      machineId: string;
      applied: { lsn: string; seq: number; digest: string };
    };
    this.#chains.applied(state.machineId, {
      lsn: BigInt(state.applied.lsn),
      seq: state.applied.seq,
      digest: state.applied.digest,
    });
  }

  #statusPut(body: Uint8Array): void {
    const status = JSON.parse(new TextDecoder().decode(body)) as {
      name: string;
      machines: {
        machineId: string;
        positions: { capturedLsn: string; journaledLsn: string; uploadedLsn: string };
      }[];
    };
    for (const { machineId, positions } of status.machines) {
      const captured = BigInt(positions.capturedLsn);
      const journaled = BigInt(positions.journaledLsn);
      const uploaded = BigInt(positions.uploadedLsn);
      const given = this.#captured.get(machineId) ?? 0n;
      const end = this.#chains.endLsn(machineId);
      const ordered = captured >= journaled && journaled >= uploaded;
      if (!ordered || uploaded > end || journaled > (given > end ? given : end))
        this.breach(
          'positions',
          `${status.name} says captured ${captured}, journaled ${journaled}, uploaded ${uploaded}; the agent gave ${given}, the vault has ${end}`,
        );
    }
  }

  /** A barrier that can't be proven is a bug of somebody's, unless bits rotted under a process server. */
  #applierStatusPut(body: Uint8Array): void {
    if (this.hasRotted) return;
    const status = JSON.parse(new TextDecoder().decode(body)) as {
      machines: { machineId: string; error?: { code: string; message: string } }[];
    };
    for (const { error } of status.machines)
      if (error?.code === 'BarrierRootMismatch') this.breach('5', error.message);
  }

  #catalogPut(body: Uint8Array): void {
    const { machineId, activeSide, activeFailover } = JSON.parse(
      new TextDecoder().decode(body),
    ) as { machineId: string; activeSide: string; activeFailover?: string };
    if (activeSide === 'Azure') this.#inAzure.add(machineId);
    if (activeSide === 'Azure') this.#held.taken(machineId, activeFailover ?? '');
    else this.#inAzure.delete(machineId);
  }

  #ledgerPut(body: Uint8Array): void {
    const { name, request, outcome, point, steps } = JSON.parse(
      new TextDecoder().decode(body),
    ) as FailoverDocument;
    const last = steps.at(-1);
    if (last?.name === 'FinalSync' && last.state === 'Done') this.atFinalSync?.(request.machineId);
    const copied = steps.some((step) => step.name === 'CopyDisks' && step.state === 'Done');
    const copies = outcome === 'Running' && point !== undefined && !copied;
    const lsn = BigInt(point?.lsn ?? 0n);
    this.#points.copies(name, copies ? vaultLayout.point(request.machineId, lsn) : undefined);
  }

  // ---------------------------------------------------------------------------------------------------------- the end

  /** A failover that came up, or gave up. */
  async failoverEnded(document: FailoverDocument, compute: MemoryCompute): Promise<void> {
    const { failure, outcome, point, request, disks } = document;
    if (failure?.code === 'RootMismatch' || failure?.code === 'JournalDamaged')
      this.breach('5', `${document.name} can not use what the vault offers: ${failure.message}`);
    if (outcome !== 'FailedOver' || point === undefined) return;
    const machine = this.#machines.get(request.machineId);
    const offered = this.#points.at(request.machineId, point.lsn);
    if (machine === undefined || offered === undefined) {
      this.breach('5', `${document.name} came up from LSN ${point.lsn}, which is no point`);
      return;
    }
    this.#held.failoverEnded(document, failoverDisks(document, compute));
    for (const disk of disks ?? []) {
      const body = compute.disks.get(disk.managedDisk.id ?? '')?.body ?? new Uint8Array();
      const differs = compareImages(body, offered.images[disk.index] ?? []);
      if (differs !== undefined)
        this.breach('5', `${document.name}: disk ${disk.name} differs at byte ${differs}`);
    }
  }

  /** When everything has settled: the journal as a whole, and every promise that was made. */
  async settle(parts: { dataKeys: ReadonlyMap<string, Uint8Array> }): Promise<void> {
    for (const [machineId, machine] of this.#machines) {
      const dataKey = parts.dataKeys.get(machineId) ?? new Uint8Array();
      const objects = new MemoryObjectStore({ clock: new ManualClock() });
      for (const { key, body } of this.#chains.segments(machineId)) await objects.put(key, body);
      const found = await journalBreaches(
        { objects, codec: inlineCodec },
        {
          machine,
          dataKey,
          candidates: (lsn) => this.candidates(machineId, lsn),
          points: this.#points.lsns(machineId),
        },
      );
      for (const { invariant, detail } of found) this.breach(invariant, detail);
    }
    await this.#points.checkKept();
  }

  /** Barriers that were acknowledged before a moment, are not in the journal, and have no reason not to be. */
  missing(beforeMs: number): string[] {
    return this.#acknowledgements.missing(beforeMs);
  }

  #lostAtMs(server: string): number {
    return this.#servers.find(({ name }) => name === server)?.lostAtMs ?? Number.NEGATIVE_INFINITY;
  }
}

function isSegment(key: string): boolean {
  return sequenceOfSegmentKey(key) !== undefined;
}
