/**
 * Compute over Azure's own SDKs.
 *
 * Every create looks first: what exists under the name and carries the same `farshore-failover` tag is ours, whether an earlier
 * attempt got its answer or not, and is waited for; what carries another is somebody else's and is never touched.
 */
import {
  ComputeManagementClient,
  type Disk,
  type ResourceSku,
  type VirtualMachine as VirtualMachineModel,
} from '@azure/arm-compute';
import { NetworkManagementClient, type NetworkInterface as NicModel } from '@azure/arm-network';
import { ResourceManagementClient } from '@azure/arm-resources';
import type { TokenCredential } from '@azure/identity';
import { ComputeError } from '../computeErrors.ts';
import type {
  AzureResourceRef,
  Compute,
  ManagedDisk,
  NetworkInterface,
  VirtualMachine,
  VmSize,
} from '../ports.ts';
import { ArmCalls, nameOf, present } from './armCalls.ts';
import { useFence } from './armFence.ts';
import { type ArmRetry, defaultArmRetry, useRetry } from './armRetry.ts';
import { type AzureCloud, trustOf } from './cloud.ts';
import {
  toManagedDisk,
  toNic,
  toVirtualMachine,
  toVmSizes,
  vmParameters,
} from './computeModels.ts';
import { fetchText } from './fetchText.ts';

export interface AzureComputeOptions {
  cloud: AzureCloud;
  subscriptionId: string;
  credential: TokenCredential;
  retry?: ArmRetry;
  /** How often a long-running operation is looked at, where Azure does not say. */
  pollMs?: number;
  /** Asked right before each request that changes something. Default: it may. */
  mayChange?: () => boolean;
  /** How long an operation may take before it is given back as OperationSlow. */
  deadlinesMs?: Partial<Deadlines>;
}

interface Deadlines {
  read: number;
  change: number;
  import: number;
  virtualMachine: number;
}

const defaultDeadlines: Deadlines = {
  read: 120_000,
  change: 600_000,
  import: 3_600_000,
  virtualMachine: 1_800_000,
};
const VM_SIZES_KEPT_MS = 600_000;
const SERIAL_LOG_KEPT = 1 << 20;

type Importing = Parameters<Compute['importDisk']>[1];
type CreatingNic = Parameters<Compute['createNic']>[1];
type CreatingVm = Parameters<Compute['createVm']>[1];

export class AzureCompute implements Compute {
  readonly #compute: ComputeManagementClient;
  readonly #network: NetworkManagementClient;
  readonly #resources: ResourceManagementClient;
  readonly #cloud: AzureCloud;
  readonly #calls: ArmCalls;
  readonly #deadlines: Deadlines;
  readonly #sizes = new Map<string, { until: number; sizes: Promise<VmSize[]> }>();

  constructor(options: AzureComputeOptions) {
    const { cloud, credential, subscriptionId } = options;
    const shared = { endpoint: cloud.resourceManager, ...trustOf(cloud) };
    const scoped = { ...shared, credentials: { scopes: [cloud.tokenScope] } };
    this.#compute = new ComputeManagementClient(credential, subscriptionId, scoped);
    this.#network = new NetworkManagementClient(credential, subscriptionId, scoped);
    this.#resources = new ResourceManagementClient(credential, subscriptionId, {
      ...shared,
      credentialScopes: cloud.tokenScope,
    });
    for (const { pipeline } of [this.#compute, this.#network, this.#resources]) {
      useRetry(pipeline, options.retry ?? defaultArmRetry);
      if (options.mayChange !== undefined) useFence(pipeline, options.mayChange);
    }
    this.#cloud = cloud;
    this.#deadlines = { ...defaultDeadlines, ...options.deadlinesMs };
    this.#calls = new ArmCalls({
      pollMs: options.pollMs ?? 2_000,
      readDeadlineMs: this.#deadlines.read,
      removeDeadlineMs: this.#deadlines.change,
    });
  }

  // ------------------------------------------------------------------------------------------------------ what is there

  async resourceGroupExists(name: string): Promise<boolean> {
    const answer = await this.#calls.read(`look for resource group ${name}`, (abortSignal) =>
      this.#resources.resourceGroups.checkExistence(name, { abortSignal }),
    );
    return answer?.body === true;
  }

  async subnet(options: {
    resourceGroup: string;
    network: string;
    subnet: string;
  }): Promise<{ id: string; location: string } | undefined> {
    const network = await this.#calls.read(
      `read virtual network ${options.network} in resource group ${options.resourceGroup}`,
      (abortSignal) =>
        this.#network.virtualNetworks.get(options.resourceGroup, options.network, { abortSignal }),
    );
    const subnet = network?.subnets?.find(
      (one) => one.name?.toLowerCase() === options.subnet.toLowerCase(),
    );
    if (network?.location === undefined || subnet?.id === undefined) return undefined;
    return { id: subnet.id, location: network.location };
  }

  /** Kept for ten minutes: the answer is megabytes, and every machine's target is checked against it. */
  vmSizes(location: string): Promise<VmSize[]> {
    const kept = this.#sizes.get(location);
    if (kept !== undefined && kept.until > performance.now()) return kept.sizes;
    const sizes = this.#listVmSizes(location);
    this.#sizes.set(location, { until: performance.now() + VM_SIZES_KEPT_MS, sizes });
    sizes.catch(() => this.#sizes.delete(location));
    return sizes;
  }

  async #listVmSizes(location: string): Promise<VmSize[]> {
    const what = `list the VM sizes of ${location}`;
    const skus = await this.#calls.call(what, this.#deadlines.read, async (abortSignal) => {
      const filter = `location eq '${location.replaceAll("'", "''")}'`;
      const found: ResourceSku[] = [];
      for await (const sku of this.#compute.resourceSkus.list({ filter, abortSignal }))
        found.push(sku);
      return found;
    });
    return toVmSizes(skus, location);
  }

  // -------------------------------------------------------------------------------------------------------------- disks

  async disk(ref: AzureResourceRef): Promise<ManagedDisk | undefined> {
    const disk = await this.#disk(ref);
    return disk === undefined ? undefined : toManagedDisk(disk);
  }

  #disk(ref: AzureResourceRef): Promise<Disk | undefined> {
    return this.#calls.read(`read ${nameOf('managed disk', ref)}`, (abortSignal) =>
      this.#compute.disks.get(ref.resourceGroup, ref.name, { abortSignal }),
    );
  }

  importDisk(ref: AzureResourceRef, options: Importing): Promise<ManagedDisk> {
    const disk: Disk = {
      location: options.location,
      tags: options.tags,
      sku: { name: options.type },
      creationData: {
        createOption: 'Import',
        sourceUri: options.sourceUrl,
        storageAccountId: options.storageAccountId,
      },
      // A zone-redundant disk is in every zone, and refused where it names one.
      ...(options.zone === undefined || options.type.endsWith('_ZRS')
        ? {}
        : { zones: [options.zone] }),
      ...(options.os === undefined
        ? {}
        : { osType: options.os.type, hyperVGeneration: options.os.generation }),
    };
    return this.#calls.create('managed disk', ref, {
      tags: options.tags,
      deadlineMs: this.#deadlines.import,
      get: () => this.disk(ref),
      put: async (abortSignal) =>
        toManagedDisk(
          await this.#compute.disks
            .createOrUpdate(ref.resourceGroup, ref.name, disk, this.#calls.polling(abortSignal))
            .pollUntilDone({ abortSignal }),
        ),
    });
  }

  async grantDiskRead(
    ref: AzureResourceRef,
    options: { seconds: number },
  ): Promise<{ url: string }> {
    const what = `grant read access to ${nameOf('managed disk', ref)}`;
    const access = await this.#calls.call(what, this.#deadlines.change, (abortSignal) =>
      this.#compute.disks
        .grantAccess(
          ref.resourceGroup,
          ref.name,
          { access: 'Read', durationInSeconds: options.seconds },
          this.#calls.polling(abortSignal),
        )
        .pollUntilDone({ abortSignal }),
    );
    if (access.accessSAS === undefined)
      throw new ComputeError(
        'OperationFailed',
        `Azure was asked to ${what} and answered without a URL. Revoke the disk's access and try again.`,
      );
    return { url: access.accessSAS };
  }

  async revokeDiskRead(ref: AzureResourceRef): Promise<void> {
    await this.#calls.call(
      `revoke access to ${nameOf('managed disk', ref)}`,
      this.#deadlines.change,
      (abortSignal) =>
        this.#compute.disks
          .revokeAccess(ref.resourceGroup, ref.name, this.#calls.polling(abortSignal))
          .pollUntilDone({ abortSignal }),
    );
  }

  removeDisk(ref: AzureResourceRef): Promise<void> {
    return this.#calls.remove('managed disk', ref, (abortSignal) =>
      this.#compute.disks
        .delete(ref.resourceGroup, ref.name, this.#calls.polling(abortSignal))
        .pollUntilDone({ abortSignal }),
    );
  }

  // ----------------------------------------------------------------------------------------------------------- networks

  async nic(ref: AzureResourceRef): Promise<NetworkInterface | undefined> {
    const nic = await this.#calls.read(`read ${nameOf('network interface', ref)}`, (abortSignal) =>
      this.#network.networkInterfaces.get(ref.resourceGroup, ref.name, { abortSignal }),
    );
    return nic === undefined ? undefined : toNic(nic);
  }

  createNic(ref: AzureResourceRef, options: CreatingNic): Promise<NetworkInterface> {
    const address =
      options.privateIp === undefined
        ? { privateIPAllocationMethod: 'Dynamic' }
        : { privateIPAllocationMethod: 'Static', privateIPAddress: options.privateIp };
    const nic: NicModel = {
      location: options.location,
      tags: options.tags,
      ipConfigurations: [
        { name: 'primary', primary: true, subnet: { id: options.subnetId }, ...address },
      ],
    };
    return this.#calls.create('network interface', ref, {
      tags: options.tags,
      deadlineMs: this.#deadlines.change,
      get: () => this.nic(ref),
      put: async (abortSignal) =>
        toNic(
          await this.#network.networkInterfaces
            .createOrUpdate(ref.resourceGroup, ref.name, nic, this.#calls.polling(abortSignal))
            .pollUntilDone({ abortSignal }),
        ),
    });
  }

  removeNic(ref: AzureResourceRef): Promise<void> {
    return this.#calls.remove('network interface', ref, (abortSignal) =>
      this.#network.networkInterfaces
        .delete(ref.resourceGroup, ref.name, this.#calls.polling(abortSignal))
        .pollUntilDone({ abortSignal }),
    );
  }

  // ----------------------------------------------------------------------------------------------------------- machines

  async vm(ref: AzureResourceRef): Promise<VirtualMachine | undefined> {
    const vm = await this.#calls.read(`read ${nameOf('virtual machine', ref)}`, (abortSignal) =>
      this.#compute.virtualMachines.get(ref.resourceGroup, ref.name, {
        expand: 'instanceView',
        abortSignal,
      }),
    );
    return vm === undefined ? undefined : toVirtualMachine(vm);
  }

  createVm(ref: AzureResourceRef, options: CreatingVm): Promise<VirtualMachine> {
    const parameters: VirtualMachineModel = vmParameters(options);
    return this.#calls.create('virtual machine', ref, {
      tags: options.tags,
      deadlineMs: this.#deadlines.virtualMachine,
      get: () => this.vm(ref),
      put: async (abortSignal) => {
        await this.#compute.virtualMachines
          .createOrUpdate(ref.resourceGroup, ref.name, parameters, this.#calls.polling(abortSignal))
          .pollUntilDone({ abortSignal });
        // The answer to the PUT has no instance view.
        return present('virtual machine', ref, await this.vm(ref));
      },
    });
  }

  removeVm(ref: AzureResourceRef): Promise<void> {
    return this.#calls.remove('virtual machine', ref, (abortSignal) =>
      this.#compute.virtualMachines
        .delete(ref.resourceGroup, ref.name, this.#calls.polling(abortSignal))
        .pollUntilDone({ abortSignal }),
    );
  }

  async serialLog(ref: AzureResourceRef): Promise<string> {
    const what = `read the boot diagnostics of ${nameOf('virtual machine', ref)}`;
    return this.#calls.call(what, this.#deadlines.read, async (abortSignal) => {
      const data = await this.#compute.virtualMachines
        .retrieveBootDiagnosticsData(ref.resourceGroup, ref.name, { abortSignal })
        .catch((error: unknown) => {
          // Not there yet, or the machine has not started: both come before the first byte.
          if (error instanceof Error && 'statusCode' in error && error.statusCode === 409)
            return undefined;
          throw error;
        });
      const url = data?.serialConsoleLogBlobUri;
      if (url === undefined) return '';
      return fetchText(url, { cloud: this.#cloud, abortSignal, keepLast: SERIAL_LOG_KEPT });
    });
  }
}
