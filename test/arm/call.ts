/** One call to Azure Resource Manager, taken apart, and what is answered. */
import type { Fault } from './faults.ts';

export interface ArmCall {
  method: string;
  path: string;
  query: URLSearchParams;
  body: Record<string, unknown>;
  /** Such as `PUT disks`, `POST disks/beginGetAccess`, `GET resourceGroups/resources`, `GET operations`. */
  operation: string;
  subscription: string;
  group: string | undefined;
  location: string | undefined;
  /** Provider and type as ARM spells them, such as Microsoft.Compute/disks. */
  type: string | undefined;
  name: string;
  /** The resource's id, as this call spells it. */
  id: string;
  /** What this call's operation shall suffer. */
  fault: Fault | undefined;
}

export interface Answer {
  status: number;
  headers?: Record<string, string>;
  body?: unknown;
  created?: boolean;
  deleted?: boolean;
}

const knownTypes: Record<string, string> = Object.fromEntries(
  [
    'Microsoft.Compute/disks',
    'Microsoft.Compute/snapshots',
    'Microsoft.Compute/virtualMachines',
    'Microsoft.Compute/skus',
    'Microsoft.Network/networkInterfaces',
    'Microsoft.Network/virtualNetworks',
  ].map((type) => [type.toLowerCase(), type]),
);

/** Undefined for a path that is not of the form ARM's are. */
export function parseCall(
  method: string,
  url: URL,
  body: Record<string, unknown>,
): ArmCall | undefined {
  const segments = url.pathname.split('/').slice(1).map(decodeURIComponent);
  const call: ArmCall = {
    method,
    path: url.pathname,
    query: url.searchParams,
    body,
    operation: '',
    subscription: segments[1] ?? '',
    group: undefined,
    location: undefined,
    type: undefined,
    name: '',
    id: '',
    fault: undefined,
  };
  if (segments[0]?.toLowerCase() !== 'subscriptions' || segments[1] === undefined) return undefined;
  const rest = segments.slice(2);
  const inGroup = rest[0]?.toLowerCase() === 'resourcegroups';
  if (inGroup) call.group = rest[1];
  const tail = inGroup ? rest.slice(2) : rest;
  if (tail[0]?.toLowerCase() === 'providers') return parseProvider(call, tail.slice(1));
  call.name = call.group ?? '';
  const subject = [inGroup ? 'resourceGroups' : 'subscriptions', ...tail].join('/');
  call.operation = `${method} ${subject}${inGroup && call.group === undefined ? 'List' : ''}`;
  return call;
}

function parseProvider(call: ArmCall, segments: string[]): ArmCall | undefined {
  const [namespace, kind, name, ...rest] = segments;
  if (namespace === undefined || kind === undefined) return undefined;
  if (kind.toLowerCase() === 'locations') {
    call.location = name;
    call.name = rest[1] ?? '';
    call.operation = `${call.method} ${rest[0] ?? 'locations'}`;
    return call;
  }
  const type = knownTypes[`${namespace}/${kind}`.toLowerCase()] ?? `${namespace}/${kind}`;
  const short = type.split('/')[1] ?? kind;
  call.type = type;
  call.name = name ?? '';
  call.id = `/subscriptions/${call.subscription}/resourceGroups/${call.group}/providers/${type}/${name}`;
  call.operation =
    name === undefined
      ? `${call.method} ${short}List`
      : `${call.method} ${[short, ...rest.slice(0, 1)].join('/')}`;
  if (rest[1] !== undefined) call.id += `/${rest[0]}/${rest[1]}`;
  return call;
}

/** A field of a body by its path, if it is a string. */
export function text(body: unknown, ...path: string[]): string | undefined {
  const value = field(body, ...path);
  return typeof value === 'string' ? value : undefined;
}

export function field(body: unknown, ...path: string[]): unknown {
  let value = body;
  for (const name of path) {
    if (typeof value !== 'object' || value === null) return undefined;
    value = (value as Record<string, unknown>)[name];
  }
  return value;
}

export function list(body: unknown, ...path: string[]): unknown[] {
  const value = field(body, ...path);
  return Array.isArray(value) ? value : [];
}
