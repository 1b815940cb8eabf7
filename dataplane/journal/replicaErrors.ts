/** What stops the work on a machine's replica. */

import { FarshoreError } from '../../platform/errors.ts';
import type { Lsn } from '../../vault/documents/fields.ts';

/** Somebody else took the replica: stop touching it. */
export class ReplicaFenced extends FarshoreError {
  readonly machineId: string;
  /** Who holds it now, as state.json says: `applier:<name>`, `recovery:<failover>`, or empty. */
  readonly holder: string;

  constructor(options: { machineId: string; holder: string; fence: number; ours: number }) {
    const { machineId, holder, fence, ours } = options;
    super(
      'ReplicaFenced',
      `The replica of machine ${machineId} was taken by ${holder || 'somebody who released it since'} (fence ${fence}, ours was ${ours}). This process stopped writing it; nothing is lost.`,
    );
    this.machineId = machineId;
    this.holder = holder;
  }
}

/** The journal, or what lies in the vault of a replica, contradicts what must hold. */
export class ReplicaDamaged extends FarshoreError {
  constructor(machineId: string, problem: string, options?: ErrorOptions) {
    super('ReplicaDamaged', `The replica of machine ${machineId} can't go on: ${problem}`, options);
  }
}

/** The replica has moved past the LSN that was asked for, and no point was kept there. */
export class ReplicaPastTarget extends FarshoreError {
  constructor(options: { machineId: string; target: Lsn; applied: Lsn }) {
    super(
      'ReplicaPastTarget',
      `The replica of machine ${options.machineId} is at LSN ${options.applied}; LSN ${options.target} lies behind it and has no recovery point. Choose a recovery point that is listed, or Latest.`,
    );
  }
}
