/** What every Kubernetes object has. `platform/kubernetes.ts` exports these again for code that sees the API through its port. */

export interface OwnerReference {
  apiVersion: string;
  kind: string;
  name: string;
  uid: string;
  controller?: boolean;
  blockOwnerDeletion?: boolean;
}

export interface ObjectMeta {
  name: string;
  /** Absent on cluster-scoped objects. */
  namespace?: string;
  uid?: string;
  resourceVersion?: string;
  /** Raised by the server at each change of the spec. */
  generation?: number;
  /** RFC 3339. */
  creationTimestamp?: string;
  /** RFC 3339; set once somebody asked for the deletion. */
  deletionTimestamp?: string;
  finalizers?: string[];
  labels?: Record<string, string>;
  annotations?: Record<string, string>;
  ownerReferences?: OwnerReference[];
  generateName?: string;
}

/** A kind of object, and where the API serves it. */
export interface ResourceType {
  /** Empty for the core group. */
  readonly group: string;
  readonly version: string;
  readonly kind: string;
  readonly plural: string;
  readonly namespaced: boolean;
}

/** kstatus and ours: `type` is unique in a list of conditions. */
export interface Condition {
  type: string;
  status: 'True' | 'False' | 'Unknown';
  /** CamelCase, stable (crds/conditions.ts). */
  reason: string;
  message: string;
  /** RFC 3339; when `status` last changed. */
  lastTransitionTime: string;
  /** The generation of the spec that this was computed from. */
  observedGeneration?: number;
}
