/**
 * Where everything lies in a vault. Nobody else builds a key.
 *
 * Numbers in keys are zero-padded so that key order is number order.
 */
import type { Lsn } from './documents/fields.ts';

const SEQUENCE_DIGITS = 12;
const LSN_DIGITS = 20;

export const vaultLayout = {
  vault: 'vault.json',
  controller: 'control/controller.json',
  recoveryCheck: 'control/recovery-check.json',
  name: (kind: 'machine' | 'processserver' | 'failover', name: string) =>
    `control/names/${kind}/${name}.json`,
  assignments: (processServer: string) => `control/assignments/${processServer}.json`,
  processServerStatus: (processServer: string) =>
    `control/status/processserver-${processServer}.json`,
  applierStatus: (applier: string) => `control/status/applier-${applier}.json`,
  statusPrefix: 'control/status/',
  enrolment: (id: string) => `control/enrolments/${id}.json`,
  enrolmentAnswer: (id: string) => `control/enrolments/${id}.answer.json`,
  enrolmentsPrefix: 'control/enrolments/',
  registration: (kind: 'processserver' | 'applier', name: string) =>
    `control/registrations/${kind}-${name}.json`,
  registrationsPrefix: 'control/registrations/',
  failover: (name: string) => `control/failovers/${name}.json`,
  failoversPrefix: 'control/failovers/',
  catalog: (machineId: string) => `catalog/${machineId}.json`,
  catalogPrefix: 'catalog/',
  segment: (machineId: string, sequence: number) =>
    `journal/${machineId}/${String(sequence).padStart(SEQUENCE_DIGITS, '0')}.seg`,
  trimMark: (machineId: string) => `journal/${machineId}/trim.json`,
  journalPrefix: (machineId: string) => `journal/${machineId}/`,
  replica: (machineId: string, disk: string) => `replicas/${machineId}/${disk}.vhd`,
  /** 32 bytes for each leaf of the replica beside it; see docs/design/0002. */
  replicaLeaves: (machineId: string, disk: string) => `replicas/${machineId}/${disk}.leaves`,
  replicaState: (machineId: string) => `replicas/${machineId}/state.json`,
  point: (machineId: string, lsn: Lsn) =>
    `points/${machineId}/${String(lsn).padStart(LSN_DIGITS, '0')}.json`,
  pointPin: (machineId: string, lsn: Lsn) =>
    `points/${machineId}/${String(lsn).padStart(LSN_DIGITS, '0')}.pin`,
  pointRetired: (machineId: string, lsn: Lsn) =>
    `points/${machineId}/${String(lsn).padStart(LSN_DIGITS, '0')}.retired`,
  /** Beside a point that holds leaves which are not what they were (docs/design/0010). */
  pointDamage: (machineId: string, lsn: Lsn) =>
    `points/${machineId}/${String(lsn).padStart(LSN_DIGITS, '0')}.damaged`,
  pointsPrefix: (machineId: string) => `points/${machineId}/`,
  /** Copies made for a failover: what managed disks are imported from. */
  failoverDisk: (failover: string, machineId: string, disk: string) =>
    `failovers/${failover}/${machineId}/${disk}.vhd`,
  failoverDisksPrefix: (failover: string) => `failovers/${failover}/`,
} as const;

/** The sequence number in a segment's key; undefined when the key is not a segment's. */
export function sequenceOfSegmentKey(key: string): number | undefined {
  const match = /\/(\d{12})\.seg$/.exec(key);
  return match?.[1] === undefined ? undefined : Number(match[1]);
}
