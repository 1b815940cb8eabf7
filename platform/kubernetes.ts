/**
 * The Kubernetes API as controllers see it: the few verbs they need, on plain objects, with errors that carry stable codes.
 *
 * The adapter is `platform/kube/`; the scripted fake for unit tests is `test/fakes/kube.ts`. Nothing here caches or retries:
 * `controllers/runtime/` does.
 */
import type { ObjectMeta, ResourceType } from '../crds/object.ts';
import { FarshoreError } from './errors.ts';

export type { Condition, ObjectMeta, OwnerReference, ResourceType } from '../crds/object.ts';

/** Who owns what Farshore applies. One manager, so that a field we stop setting is removed by the server. */
export const FIELD_MANAGER = 'farshore';

// ------------------------------------------------------------------------------------------------------------------- objects

/** Any object of the API. Concrete types are in `crds/index.ts` and below. */
export interface KubeObject {
  apiVersion: string;
  kind: string;
  metadata: ObjectMeta;
}

/** An object of ours, or any other with the usual two halves. */
export interface KubeResource<Spec = unknown, Status = unknown> extends KubeObject {
  spec: Spec;
  status?: Status;
}

/** Names an object of a known type. `namespace` is absent for cluster-scoped types. */
export interface ObjectName {
  namespace?: string;
  name: string;
}

/** Types of the API itself that Farshore reads or writes. */
export const kubeTypes = {
  secret: { group: '', version: 'v1', kind: 'Secret', plural: 'secrets', namespaced: true },
  service: { group: '', version: 'v1', kind: 'Service', plural: 'services', namespaced: true },
  configMap: {
    group: '',
    version: 'v1',
    kind: 'ConfigMap',
    plural: 'configmaps',
    namespaced: true,
  },
  namespace: {
    group: '',
    version: 'v1',
    kind: 'Namespace',
    plural: 'namespaces',
    namespaced: false,
  },
  pod: { group: '', version: 'v1', kind: 'Pod', plural: 'pods', namespaced: true },
  persistentVolumeClaim: {
    group: '',
    version: 'v1',
    kind: 'PersistentVolumeClaim',
    plural: 'persistentvolumeclaims',
    namespaced: true,
  },
  statefulSet: {
    group: 'apps',
    version: 'v1',
    kind: 'StatefulSet',
    plural: 'statefulsets',
    namespaced: true,
  },
  lease: {
    group: 'coordination.k8s.io',
    version: 'v1',
    kind: 'Lease',
    plural: 'leases',
    namespaced: true,
  },
  event: {
    group: 'events.k8s.io',
    version: 'v1',
    kind: 'Event',
    plural: 'events',
    namespaced: true,
  },
  customResourceDefinition: {
    group: 'apiextensions.k8s.io',
    version: 'v1',
    kind: 'CustomResourceDefinition',
    plural: 'customresourcedefinitions',
    namespaced: false,
  },
} as const satisfies Record<string, ResourceType>;

export interface SecretObject extends KubeObject {
  type?: string;
  /** Base64 values. */
  data?: Record<string, string>;
  /** Write-only convenience of the API: plain text, merged into `data`. */
  stringData?: Record<string, string>;
  immutable?: boolean;
}

export interface LeaseObject extends KubeObject {
  spec?: {
    holderIdentity?: string;
    leaseDurationSeconds?: number;
    /** RFC 3339 with microseconds. */
    acquireTime?: string;
    renewTime?: string;
    leaseTransitions?: number;
  };
}

/** `apps/v1`, or `v1` for the core group. */
export function apiVersionOf(type: ResourceType): string {
  return type.group === '' ? type.version : `${type.group}/${type.version}`;
}

// --------------------------------------------------------------------------------------------------------------------- client

export interface ListPage<T extends KubeObject> {
  items: T[];
  /** Of the whole list, the same on every page: where a watch starts. */
  resourceVersion: string;
  /** Present while there is more. */
  continue?: string;
}

export type WatchEvent<T extends KubeObject> =
  | { type: 'added' | 'modified' | 'deleted'; object: T }
  /** Nothing changed up to `resourceVersion`: a later watch may start there. */
  | { type: 'bookmark'; resourceVersion: string };

/** What a server-side apply sends: the identity and only those fields that we own. */
export type AppliedObject =
  | KubeObject
  | (Pick<KubeObject, 'apiVersion' | 'kind' | 'metadata'> & Record<string, unknown>);

/** Operations of an RFC 6902 patch; `test` makes it conditional. */
export type JsonPatch = readonly (
  | { op: 'add' | 'replace' | 'test'; path: string; value: unknown }
  | { op: 'remove'; path: string }
)[];

/** Every method rejects with a KubeError, or with the signal's reason once it aborted. */
export interface KubeClient {
  /** `undefined` when the object does not exist. */
  get<T extends KubeObject>(type: ResourceType, name: ObjectName): Promise<T | undefined>;

  /**
   * One page, consistent with the first page's moment. `limit` 0 asks for all at once. A `continue` token that is too old gives
   * the code `Gone`: start again without it. No `namespace` lists all of them.
   */
  list<T extends KubeObject>(
    type: ResourceType,
    options: {
      namespace?: string;
      labelSelector?: string;
      fieldSelector?: string;
      limit: number;
      continue?: string;
      signal?: AbortSignal;
    },
  ): Promise<ListPage<T>>;

  /**
   * Changes after `resourceVersion`, in order, with bookmarks. Ends without an error when the server ends it (as it does
   * after `timeoutSeconds`); rejects with `Gone` when the version is too old, so that a new list is needed, and with
   * `Unreachable` when the stream broke or nothing, not even a bookmark, came for longer than a live watch can be silent.
   */
  watch<T extends KubeObject>(
    type: ResourceType,
    options: {
      namespace?: string;
      labelSelector?: string;
      fieldSelector?: string;
      resourceVersion: string;
      timeoutSeconds: number;
      signal: AbortSignal;
    },
  ): AsyncIterable<WatchEvent<T>>;

  /** Fails with `AlreadyExists` when it does. `metadata.generateName` may stand in for the name. */
  create<T extends KubeObject>(type: ResourceType, object: T): Promise<T>;

  /** PUT: `metadata.resourceVersion` is required, another one on the server gives `Conflict`. */
  replace<T extends KubeObject>(type: ResourceType, object: T): Promise<T>;

  /**
   * Server-side apply as FIELD_MANAGER. `force` (default true) takes fields over that another manager set; `Conflict` otherwise.
   * Creates the object when it does not exist, unless `metadata.uid` pins one that is gone: `Conflict`, or `Invalid` when
   * another has its name by now. A `resourceVersion` alone pins only while there is an object: `Conflict`.
   */
  apply<T extends KubeObject>(
    type: ResourceType,
    object: AppliedObject,
    options?: { force?: boolean },
  ): Promise<T>;

  /** Server-side apply of the status subresource. `NotFound` when the object is gone. */
  applyStatus<T extends KubeObject>(
    type: ResourceType,
    object: AppliedObject,
    options?: { force?: boolean },
  ): Promise<T>;

  /** Merge patch (RFC 7386) or JSON patch (RFC 6902; a `test` that fails gives `Invalid`). */
  patch<T extends KubeObject>(
    type: ResourceType,
    name: ObjectName,
    patch: { merge: Record<string, unknown> } | { json: JsonPatch },
    options?: { subresource?: 'status' | 'scale' },
  ): Promise<T>;

  /** `missing` when there was nothing. A precondition that does not hold gives `Conflict`. */
  remove(
    type: ResourceType,
    name: ObjectName,
    options?: {
      uid?: string;
      resourceVersion?: string;
      propagation?: 'Background' | 'Foreground' | 'Orphan';
    },
  ): Promise<'removed' | 'missing'>;
}

// --------------------------------------------------------------------------------------------------------------------- errors

export type KubeErrorCode =
  /** 404 of an object. */
  | 'NotFound'
  /** 404 of the whole kind: its CRD is not installed. Must not look as if all its objects had been deleted. */
  | 'NotServed'
  /** 409: another version, another owner of a field, or a precondition that does not hold. */
  | 'Conflict'
  | 'AlreadyExists'
  /** 410: the resource version or continue token is older than what the server keeps. */
  | 'Gone'
  /** 422 or 400: the server refused the content. The message says which field and why. */
  | 'Invalid'
  | 'Unauthorized'
  | 'Forbidden'
  /** 429, or a 503 with Retry-After: `retryAfterMs` says when. */
  | 'TooManyRequests'
  /** 5xx. */
  | 'ServerError'
  /** No answer: refused, reset, timed out, cut. The call may have happened. */
  | 'Unreachable'
  /** An answer that can't be what it claims to be, or is larger than we accept. */
  | 'BadAnswer';

/** Why a call to the Kubernetes API failed. The message names verb, kind and object. */
export class KubeError extends FarshoreError {
  declare readonly code: KubeErrorCode;
  /** HTTP status; 0 when there was no answer. */
  readonly status: number;
  readonly retryAfterMs: number | undefined;

  constructor(
    code: KubeErrorCode,
    message: string,
    options: ErrorOptions & { status?: number; retryAfterMs?: number } = {},
  ) {
    super(code, message, options);
    this.status = options.status ?? 0;
    this.retryAfterMs = options.retryAfterMs;
  }
}

/** Whether the error is a KubeError, of one of the codes when any are given. */
export function isKubeError(error: unknown, ...codes: KubeErrorCode[]): error is KubeError {
  return error instanceof KubeError && (codes.length === 0 || codes.includes(error.code));
}
