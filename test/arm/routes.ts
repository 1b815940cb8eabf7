/** Which call is answered by whom. */
import type { Answer, ArmCall } from './call.ts';
import {
  getGroup,
  groupExists,
  listLocations,
  listSkus,
  listVmSizes,
  putGroup,
} from './catalogue.ts';
import type { EmulatorContext } from './context.ts';
import { beginGetAccess, deleteDisk, endGetAccess, putDisk, putSnapshot } from './disks.ts';
import { ArmFailure, notFound } from './failure.ts';
import type { MachineRoom } from './machineRoom.ts';
import { deleteNic, getSubnet, putNic } from './networks.ts';
import { view } from './resources.ts';
import {
  bootDiagnostics,
  deallocateVm,
  deleteVm,
  getInstanceView,
  getVm,
  powerOffVm,
  putVm,
  startVm,
} from './virtualMachines.ts';

type Handler = (
  context: EmulatorContext,
  call: ArmCall,
  room: MachineRoom,
) => Answer | Promise<Answer>;

const handlers: Record<string, Handler> = {
  'GET subscriptions': (context) => ({
    status: 200,
    body: { subscriptionId: context.subscriptionId, displayName: 'emulated', state: 'Enabled' },
  }),
  'GET subscriptions/locations': listLocations,
  'HEAD resourceGroups': (context, call) => ({
    status: groupExists(context, call.name) ? 204 : 404,
  }),
  'GET resourceGroups': getGroup,
  'PUT resourceGroups': putGroup,
  'GET resourceGroups/resources': listResources,
  'GET skusList': listSkus,
  'GET vmSizes': listVmSizes,
  'GET operations': getOperation,
  'GET operationResults': getOperationResult,

  'PUT disks': putDisk,
  'GET disks': getResource,
  'GET disksList': listResources,
  'DELETE disks': deleteDisk,
  'POST disks/beginGetAccess': beginGetAccess,
  'POST disks/endGetAccess': endGetAccess,
  'PUT snapshots': putSnapshot,
  'GET snapshots': getResource,
  'GET snapshotsList': listResources,
  'DELETE snapshots': deleteDisk,

  'GET virtualNetworks': getResource,
  'GET virtualNetworksList': listResources,
  'GET virtualNetworks/subnets': getSubnet,
  'PUT networkInterfaces': putNic,
  'GET networkInterfaces': getResource,
  'GET networkInterfacesList': listResources,
  'DELETE networkInterfaces': deleteNic,

  'PUT virtualMachines': putVm,
  'GET virtualMachines': getVm,
  'GET virtualMachinesList': listResources,
  'GET virtualMachines/instanceView': getInstanceView,
  'DELETE virtualMachines': deleteVm,
  'POST virtualMachines/start': startVm,
  'POST virtualMachines/powerOff': powerOffVm,
  'POST virtualMachines/deallocate': deallocateVm,
  'POST virtualMachines/retrieveBootDiagnosticsData': bootDiagnostics,
};

export async function route(
  call: ArmCall,
  context: EmulatorContext,
  room: MachineRoom,
): Promise<Answer> {
  const handler = handlers[call.operation];
  if (handler === undefined)
    throw new ArmFailure(404, 'InvalidResourceType', `${call.operation} is not emulated.`);
  return handler(context, call, room);
}

function getResource(context: EmulatorContext, call: ArmCall): Answer {
  const resource = context.resources.get(call.id);
  if (resource === undefined) throw notFound(call.id);
  return { status: 200, body: view(resource) };
}

function listResources(context: EmulatorContext, call: ArmCall): Answer {
  const filter = {
    ...(call.type === undefined ? {} : { type: call.type }),
    ...(call.group === undefined ? {} : { group: call.group }),
  };
  const value = context.resources
    .list(filter)
    .filter((one) => !one.type.endsWith('/resourceGroups'))
    .map(view);
  return { status: 200, body: { value } };
}

/** What Azure-AsyncOperation leads to. */
function getOperation(context: EmulatorContext, call: ArmCall): Answer {
  const operation = context.operations.get(call.name);
  if (operation === undefined)
    throw new ArmFailure(404, 'NotFound', `Operation ${call.name} is not known.`);
  const { id, status, startTime, endTime, error } = operation;
  return {
    status: 200,
    headers: waitHeader(context, status),
    body: { name: id, startTime, endTime, status, error },
  };
}

/** What Location leads to. */
function getOperationResult(context: EmulatorContext, call: ArmCall): Answer {
  const operation = context.operations.get(call.name);
  if (operation === undefined)
    throw new ArmFailure(404, 'NotFound', `Operation ${call.name} is not known.`);
  if (operation.status === 'InProgress')
    return { status: 202, headers: waitHeader(context, operation.status) };
  if (operation.error !== undefined)
    throw new ArmFailure(409, operation.error.code, operation.error.message);
  return { status: 200, body: operation.output };
}

function waitHeader(context: EmulatorContext, status: string): Record<string, string> {
  const wait = context.settings.retryAfterSeconds;
  return status !== 'InProgress' || wait === undefined ? {} : { 'retry-after': String(wait) };
}
