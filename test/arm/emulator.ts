/**
 * A stand-in for Azure Resource Manager, its login service and what they serve by URL, over HTTPS with a CA of its own, for the
 * unchanged Azure SDKs. A virtual machine of it boots its disks under QEMU.
 *
 * Kept in one directory: what exists, the disks' content, serial logs, keys, and the log of calls. An emulator that is started
 * again over the directory goes on: machines that ran are powered on.
 */
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import { list, text } from './call.ts';
import { CallLog, creations, type LoggedCall } from './callLog.ts';
import { seedGroup } from './catalogue.ts';
import { serverIdentity } from './certificates.ts';
import {
  defaultSettings,
  type EmulatedLocation,
  EmulatorContext,
  type EmulatorSettings,
  type StorageAccount,
} from './context.ts';
import { type Fault, Faults } from './faults.ts';
import { FrontDoor } from './frontDoor.ts';
import { Login } from './login.ts';
import { MachineRoom } from './machineRoom.ts';
import { type SeedNetwork, seedNetwork } from './networks.ts';
import type { Resource } from './resources.ts';

export interface EmulatorOptions {
  /** Where everything is kept; made when it is not there. */
  directory: string;
  /** Address to listen on [127.0.0.1], and the name in URLs. */
  host?: string;
  /** 0: any free one [0]. A restart that clients shall not notice needs the same. */
  port?: number;
  tenantId?: string;
  clientId?: string;
  clientSecret?: string;
  workloadToken?: string;
  subscriptionId?: string;
  locations?: readonly EmulatedLocation[];
  resourceGroups?: readonly { name: string; location: string }[];
  networks?: readonly SeedNetwork[];
  storageAccounts?: readonly StorageAccount[];
  settings?: Partial<EmulatorSettings>;
  /** In this process alone: told of each call to Azure Resource Manager when it has had its effect; the answer waits for the promise. */
  onCall?: (call: LoggedCall) => Promise<void>;
}

/** What a test may do to and ask of the emulator; the same in this process and from another (client.ts). */
export interface EmulatorControl {
  addFault(fault: Fault): Promise<void>;
  clearFaults(): Promise<void>;
  change(settings: Partial<EmulatorSettings>): Promise<void>;
  addStorageAccount(account: StorageAccount): Promise<void>;
  addResourceGroup(group: { name: string; location: string }): Promise<void>;
  addNetwork(network: SeedNetwork): Promise<void>;
  calls(): Promise<LoggedCall[]>;
  /** How often each resource was brought into being, such as `disks/web-0` → 1. */
  creations(): Promise<Record<string, number>>;
  /** All that exists but resource groups and networks, with the file of each disk and the serial log of each machine. */
  resources(): Promise<ExistingResource[]>;
}

export interface ExistingResource {
  id: string;
  type: string;
  name: string;
  tags: Record<string, string>;
  provisioningState: string;
  /** Of a disk its content, of a machine its serial log. */
  file?: string;
  /** Of a network interface: ids. */
  subnets?: string[];
  /** The body of the PUT that made it, but for the tags. */
  request: Record<string, unknown>;
}

export const emulatorDefaults = {
  tenantId: '11111111-1111-4111-8111-111111111111',
  clientId: '22222222-2222-4222-8222-222222222222',
  clientSecret: 'not-a-secret-of-anybody',
  subscriptionId: '33333333-3333-4333-8333-333333333333',
  locations: [
    { name: 'westeurope', zones: ['1', '2', '3'] },
    { name: 'northeurope', zones: [] },
  ],
} as const;

export class ArmEmulator {
  readonly url: string;
  /** PEM of the CA to trust. */
  readonly ca: string;
  readonly caFile: string;
  readonly control: EmulatorControl;
  readonly #server: Server;
  readonly #context: EmulatorContext;
  readonly #room: MachineRoom;

  constructor(parts: {
    url: string;
    ca: string;
    caFile: string;
    control: EmulatorControl;
    server: Server;
    context: EmulatorContext;
    room: MachineRoom;
  }) {
    this.url = parts.url;
    this.ca = parts.ca;
    this.caFile = parts.caFile;
    this.control = parts.control;
    this.#server = parts.server;
    this.#context = parts.context;
    this.#room = parts.room;
  }

  /** Process ids of the machines that run. */
  machineProcesses(): number[] {
    return this.#room.processes();
  }

  /** Stops listening, lets running operations end, pulls the plug of every machine. The directory stays. */
  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
    await this.#context.operations.close();
    await this.#room.close();
  }
}

export async function startEmulator(options: EmulatorOptions): Promise<ArmEmulator> {
  const host = options.host ?? '127.0.0.1';
  for (const name of ['disks', 'serial'])
    mkdirSync(path.join(options.directory, name), { recursive: true });
  const context = new EmulatorContext({
    directory: options.directory,
    settings: { ...defaultSettings, ...options.settings },
    locations:
      options.locations ??
      emulatorDefaults.locations.map((one) => ({ ...one, zones: [...one.zones] })),
    storageAccounts: [...(options.storageAccounts ?? [])],
    subscriptionId: options.subscriptionId ?? emulatorDefaults.subscriptionId,
  });
  for (const group of options.resourceGroups ?? []) seedGroup(context, group.name, group.location);
  for (const network of options.networks ?? []) seedNetwork(context, network);

  const identity = await serverIdentity(options.directory, [...new Set([host, 'localhost'])]);
  const caFile = path.join(options.directory, 'ca.pem');
  writeFileSync(caFile, identity.ca);
  const log = new CallLog(path.join(options.directory, 'calls.jsonl'));
  const faults = new Faults();
  const room = new MachineRoom(context);
  const control = localControl({ context, faults, log });
  const login = new Login({
    tenantId: options.tenantId ?? emulatorDefaults.tenantId,
    clientId: options.clientId ?? emulatorDefaults.clientId,
    clientSecret: options.clientSecret ?? emulatorDefaults.clientSecret,
    workloadToken: options.workloadToken,
    signingKey: keptKey(path.join(options.directory, 'token-key')),
  });
  const front = new FrontDoor({
    ...{ context, faults, log, room, login, control },
    onCall: options.onCall,
  });
  const server = createServer({ cert: identity.cert, key: identity.key }, (request, response) => {
    front.serve(request, response).catch((error: unknown) => {
      console.error('arm emulator:', error);
      response.destroy();
    });
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen({ host, port: options.port ?? 0 }, resolve);
  });
  context.url = `https://${host}:${(server.address() as AddressInfo).port}`;
  await room.powerOnAgain();
  return new ArmEmulator({
    url: context.url,
    ca: identity.ca,
    caFile,
    control,
    server,
    context,
    room,
  });
}

/** Removes the emulator's directory; it must be closed. */
export function removeEmulatorState(directory: string): void {
  rmSync(directory, { recursive: true, force: true });
}

function localControl(parts: {
  context: EmulatorContext;
  faults: Faults;
  log: CallLog;
}): EmulatorControl {
  const { context, faults, log } = parts;
  return {
    addFault: async (fault) => faults.add(fault),
    clearFaults: async () => faults.clear(),
    change: async (settings) => {
      Object.assign(context.settings, settings);
    },
    addStorageAccount: async (account) => {
      context.storageAccounts.push(account);
    },
    addResourceGroup: async (group) => seedGroup(context, group.name, group.location),
    addNetwork: async (network) => {
      seedNetwork(context, network);
    },
    calls: async () => log.list(),
    creations: async () => creations(log.list()),
    resources: async () =>
      context.resources
        .list()
        .filter((one) => !/resourceGroups$|virtualNetworks$/.test(one.type))
        .map((one) => existing(context, one)),
  };
}

function existing(context: EmulatorContext, resource: Resource): ExistingResource {
  const { id, type, name, tags, properties } = resource;
  const request = resource.hidden.body as Record<string, unknown>;
  const common = { id, type, name, tags, provisioningState: properties.provisioningState, request };
  if (/disks$|snapshots$/.test(type)) return { ...common, file: context.diskFile(resource) };
  if (/virtualMachines$/.test(type)) return { ...common, file: context.serialFile(resource) };
  if (!/networkInterfaces$/.test(type)) return common;
  const subnets = list(properties, 'ipConfigurations').map(
    (one) => text(one, 'properties', 'subnet', 'id') ?? '',
  );
  return { ...common, subnets };
}

function keptKey(file: string): string {
  if (!existsSync(file)) writeFileSync(file, randomBytes(32).toString('hex'), { mode: 0o600 });
  return readFileSync(file, 'utf8');
}
