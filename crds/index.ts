/** The API group farshore.dev/v1alpha1: types (generated from the YAML beside), and where the API serves them. */
import type { ResourceType } from './object.ts';

export * from './conditions.ts';
export type { Condition, ObjectMeta, OwnerReference, ResourceType } from './object.ts';
export type * from './types/failovers.ts';
export type * from './types/processservers.ts';
export type * from './types/protectedvms.ts';
export type * from './types/recoveryvaults.ts';
export type * from './types/replicationpolicies.ts';

export const API_GROUP = 'farshore.dev';
export const API_VERSION = 'v1alpha1';
/** `apiVersion` of every object of ours. */
export const API_GROUP_VERSION = `${API_GROUP}/${API_VERSION}`;

/** Keeps an object until its controller has let go of it. */
export const FINALIZER = `${API_GROUP}/finalizer`;
/** Annotation whose presence (any value) releases the finalizer at once; an Event lists what is left behind. */
export const FORCE_DELETE_ANNOTATION = `${API_GROUP}/force-delete`;

const kind = (names: { kind: string; plural: string }) =>
  ({
    group: API_GROUP,
    version: API_VERSION,
    namespaced: true,
    ...names,
  }) as const satisfies ResourceType;

export const farshoreTypes = {
  recoveryVault: kind({ kind: 'RecoveryVault', plural: 'recoveryvaults' }),
  replicationPolicy: kind({ kind: 'ReplicationPolicy', plural: 'replicationpolicies' }),
  protectedVM: kind({ kind: 'ProtectedVM', plural: 'protectedvms' }),
  processServer: kind({ kind: 'ProcessServer', plural: 'processservers' }),
  failover: kind({ kind: 'Failover', plural: 'failovers' }),
} as const;
