/** What the emulated resource providers share. */
import { randomBytes } from 'node:crypto';
import path from 'node:path';
import { type Answer, type ArmCall, field } from './call.ts';
import { ArmFailure } from './failure.ts';
import { type Operation, Operations } from './operations.ts';
import { type Resource, Resources, view } from './resources.ts';

export interface StorageAccount {
  /** Its resource id, as `storageAccountId` names it. */
  id: string;
  location: string;
  /** http://127.0.0.1:10000/devstoreaccount1 */
  blobEndpoint: string;
  accountName: string;
  accountKey: string;
}

export interface EmulatedLocation {
  name: string;
  zones: string[];
}

export interface EmulatorSettings {
  /** How long each operation takes before its work begins [20]. */
  operationMs: number;
  /** The same for some, such as `PUT disks`. */
  operationsMs: Record<string, number>;
  /** Retry-After of answers that are still in progress; left out when undefined. */
  retryAfterSeconds: number | undefined;
  /** Per location [100]. */
  coresQuota: number;
  /** Overwrite the OS disk's first sector before a machine starts: the machine must then not come up. */
  wipeBootSector: boolean;
  /** Of the guests; sizes are not taken at their word [512]. */
  guestMemoryMiB: number;
  /** Before a machine first starts, keep a copy of each disk beside it, as `<file>.imported` [false]. */
  keepImported: boolean;
  /** Start machines in QEMU [true]; without it they only seem to run. */
  bootMachines: boolean;
}

export const defaultSettings: EmulatorSettings = {
  operationMs: 20,
  operationsMs: {},
  retryAfterSeconds: undefined,
  coresQuota: 100,
  wipeBootSector: false,
  keepImported: false,
  guestMemoryMiB: 512,
  bootMachines: true,
};

export class EmulatorContext {
  readonly directory: string;
  readonly resources: Resources;
  readonly operations = new Operations();
  readonly settings: EmulatorSettings;
  readonly locations: readonly EmulatedLocation[];
  readonly storageAccounts: StorageAccount[];
  readonly subscriptionId: string;
  /** https://host:port, known once the server listens. */
  url = '';

  constructor(options: {
    directory: string;
    settings: EmulatorSettings;
    locations: readonly EmulatedLocation[];
    storageAccounts: StorageAccount[];
    subscriptionId: string;
  }) {
    this.directory = options.directory;
    this.settings = options.settings;
    this.locations = options.locations;
    this.storageAccounts = options.storageAccounts;
    this.subscriptionId = options.subscriptionId;
    this.resources = new Resources(path.join(options.directory, 'resources.json'));
  }

  /** The content of a disk or snapshot: raw, sparse. */
  diskFile(resource: Resource): string {
    return path.join(this.directory, 'disks', `${resource.uid}.raw`);
  }

  serialFile(resource: Resource): string {
    return path.join(this.directory, 'serial', `${resource.uid}.log`);
  }

  requireLocation(name: string | undefined): EmulatedLocation {
    const known = this.locations.find((one) => one.name === name?.toLowerCase());
    if (known !== undefined) return known;
    throw new ArmFailure(
      400,
      'LocationNotAvailableForResourceType',
      `The provided location '${name}' is not available. List of available regions is '${this.locations.map((one) => one.name).join(',')}'.`,
    );
  }

  /**
   * A PUT: creates, joins a creation under way, answers what exists unchanged, or refuses a change. `prepare` checks everything
   * and gives the new resource's properties; it runs synchronously with the decision. `work` is the operation.
   */
  put(
    call: ArmCall,
    creation: {
      prepare: () => Pick<Resource, 'properties'> & Partial<Resource>;
      work: (resource: Resource) => Promise<void>;
    },
  ): Answer {
    const existing = this.resources.get(call.id);
    if (existing !== undefined) {
      const joined = this.#putAgain(call, existing);
      if (joined !== undefined) return joined;
    }
    const made = creation.prepare();
    const resource: Resource = {
      id: call.id,
      name: call.name,
      type: call.type ?? '',
      location: String(field(call.body, 'location') ?? '').toLowerCase(),
      tags: { ...(field(call.body, 'tags') as Record<string, string> | undefined) },
      uid: randomBytes(8).toString('hex'),
      ...made,
      properties: { ...made.properties, provisioningState: 'Creating' },
      hidden: { ...made.hidden, body: settledBody(call.body) },
    };
    this.resources.set(resource);
    const operation = this.begin(call, resource, {
      work: async () => {
        await creation.work(resource);
        resource.properties.provisioningState = 'Succeeded';
        this.resources.save();
      },
      onFailure: () => {
        resource.properties.provisioningState = 'Failed';
        this.resources.save();
      },
    });
    resource.hidden.operation = operation.id;
    return {
      status: 201,
      headers: this.#operationHeaders(operation),
      body: view(resource),
      created: existing === undefined,
    };
  }

  /** A DELETE: what is not there is gone already. `refuse` throws when it may not go. */
  delete(
    call: ArmCall,
    removal: { refuse: (resource: Resource) => void; work: (resource: Resource) => Promise<void> },
  ): Answer {
    const resource = this.resources.get(call.id);
    if (resource === undefined) return { status: 204 };
    if (resource.properties.provisioningState === 'Deleting') {
      const operation = this.operations.get(String(resource.hidden.operation));
      if (operation !== undefined)
        return { status: 202, headers: this.#operationHeaders(operation) };
    }
    if (/^(Creating|Updating)$/.test(resource.properties.provisioningState))
      throw new ArmFailure(
        409,
        'RequestConflict',
        `Cannot delete resource with id '${resource.id}' because the resource entity provisioning state is not terminal. Please wait for the provisioning state to become terminal and then retry the request.`,
      );
    removal.refuse(resource);
    const before = resource.properties.provisioningState;
    resource.properties.provisioningState = 'Deleting';
    const operation = this.begin(call, resource, {
      work: async () => {
        await removal.work(resource);
        this.resources.delete(resource.id);
      },
      onFailure: () => {
        resource.properties.provisioningState = before;
      },
    });
    resource.hidden.operation = operation.id;
    return { status: 202, headers: this.#operationHeaders(operation), deleted: true };
  }

  /** A POST whose result comes later. */
  act(call: ArmCall, resource: Resource, work: () => Promise<unknown>): Answer {
    return {
      status: 202,
      headers: this.#operationHeaders(this.begin(call, resource, { work })),
    };
  }

  begin(
    call: ArmCall,
    resource: Resource,
    options: { work: () => Promise<unknown>; onFailure?: (error: ArmFailure) => void },
  ): Operation {
    const { fault } = call;
    const usual = this.settings.operationsMs[call.operation] ?? this.settings.operationMs;
    return this.operations.start({
      location: resource.location,
      method: call.method,
      delayMs: fault?.kind === 'slow' ? fault.ms : usual,
      work: async () => {
        if (fault?.kind === 'asyncFailure') throw new ArmFailure(200, fault.code, fault.message);
        return options.work();
      },
      ...(options.onFailure === undefined ? {} : { onFailure: options.onFailure }),
    });
  }

  #putAgain(call: ArmCall, existing: Resource): Answer | undefined {
    const same =
      JSON.stringify(settledBody(call.body)) === JSON.stringify(existing.hidden.body ?? {});
    const state = existing.properties.provisioningState;
    if (state === 'Deleting' || (state === 'Creating' && !same))
      throw new ArmFailure(
        409,
        'RequestConflict',
        `Cannot modify resource with id '${existing.id}' because the resource entity provisioning state is not terminal. Please wait for the provisioning state to become terminal and then retry the request.`,
      );
    if (!same)
      throw new ArmFailure(
        409,
        'PropertyChangeNotAllowed',
        `Changing properties of the existing resource '${existing.id}' is not allowed.`,
      );
    const operation = this.operations.get(String(existing.hidden.operation));
    if (state === 'Creating' && operation !== undefined)
      return { status: 202, headers: this.#operationHeaders(operation), body: view(existing) };
    if (state === 'Failed') return undefined;
    existing.tags = { ...(field(call.body, 'tags') as Record<string, string> | undefined) };
    this.resources.save();
    return { status: 200, body: view(existing) };
  }

  #operationHeaders(operation: Operation): Record<string, string> {
    const base = `${this.url}/subscriptions/${this.subscriptionId}/providers/Microsoft.Compute/locations/${operation.location}`;
    const wait = this.settings.retryAfterSeconds;
    return {
      'azure-asyncoperation': `${base}/operations/${operation.id}?api-version=2026-03-02`,
      location: `${base}/operationResults/${operation.id}?api-version=2026-03-02`,
      ...(wait === undefined ? {} : { 'retry-after': String(wait) }),
    };
  }
}

/** What may not change between two PUTs: all but the tags. */
function settledBody(body: Record<string, unknown>): unknown {
  return { ...body, tags: undefined };
}
