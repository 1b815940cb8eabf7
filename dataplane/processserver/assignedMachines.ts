/** The machines that this process server is assigned now, brought in line with each new list. */
import { errorCode, errorMessage } from '../../platform/errors.ts';
import type { Assignment, AssignmentsDocument } from '../../vault/documents/assignments.ts';
import { AssignedMachine, type AssignedMachineDeps } from './assignedMachine.ts';

export class AssignedMachines {
  readonly #deps: AssignedMachineDeps;
  readonly #machines = new Map<string, AssignedMachine>();
  #redirects: AssignmentsDocument['redirects'] = {};
  #peers: readonly string[] = [];
  #applied = false;
  #applying: Promise<void> = Promise.resolve();

  constructor(deps: Omit<AssignedMachineDeps, 'peers'>) {
    this.#deps = { ...deps, peers: () => this.#peers };
  }

  /** Whether a list was ever applied: before, nobody can be told that he is not assigned. */
  get known(): boolean {
    return this.#applied;
  }

  get(machineId: string): AssignedMachine | undefined {
    return this.#machines.get(machineId);
  }

  /** Where the owner of a machine that is not here is reached; undefined when nobody knows. */
  redirect(machineId: string): readonly string[] | undefined {
    return Object.hasOwn(this.#redirects, machineId) ? this.#redirects[machineId] : undefined;
  }

  list(): AssignedMachine[] {
    return [...this.#machines.values()];
  }

  /** Begins with the new machines, updates the others, drops those that are gone. Lists are applied one after the other. */
  apply(document: AssignmentsDocument): Promise<void> {
    this.#applying = this.#applying.then(() => this.#apply(document));
    return this.#applying;
  }

  async close(): Promise<void> {
    await this.#applying;
    await Promise.all(this.list().map((machine) => machine.close()));
  }

  async #apply(document: AssignmentsDocument): Promise<void> {
    const assigned = new Set(document.machines.map((assignment) => assignment.machineId));
    this.#redirects = document.redirects;
    const peers = document.peers ?? [];
    const peersChanged = JSON.stringify(peers) !== JSON.stringify(this.#peers);
    this.#peers = peers;
    for (const machine of this.list())
      if (!assigned.has(machine.machineId)) await this.#drop(machine);
    for (const machineId of this.#deps.cache.machines())
      if (!assigned.has(machineId)) await this.#dropLeftover(machineId);
    for (const assignment of document.machines) await this.#follow(assignment, { peersChanged });
    this.#applied = true;
  }

  async #follow(assignment: Assignment, news: { peersChanged: boolean }): Promise<void> {
    const present = this.#machines.get(assignment.machineId);
    if (present !== undefined) {
      present.update(assignment, news);
      return;
    }
    try {
      const machine = await AssignedMachine.begin(this.#deps, assignment);
      this.#machines.set(assignment.machineId, machine);
    } catch (error) {
      this.#deps.logger.error(
        { code: errorCode(error), machine: assignment.name, error },
        'The machine can not be served: what is remembered of it can not be read',
      );
    }
  }

  async #drop(machine: AssignedMachine): Promise<void> {
    this.#machines.delete(machine.machineId);
    this.#deps.logger.info(
      { machineId: machine.machineId },
      'The machine is not assigned any more',
    );
    try {
      await machine.close();
      await machine.drop();
    } catch (error) {
      this.#dropFailed(machine.machineId, error);
    }
  }

  async #dropLeftover(machineId: string): Promise<void> {
    try {
      await this.#deps.cache.dropMachine(machineId);
    } catch (error) {
      this.#dropFailed(machineId, error);
    }
  }

  #dropFailed(machineId: string, error: unknown): void {
    this.#deps.logger.error(
      { code: errorCode(error), machineId, error },
      `The machine's state could not be removed from the cache (${errorMessage(error)}); the next list tries again`,
    );
  }
}
