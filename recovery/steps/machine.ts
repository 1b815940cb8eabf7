/** The network interfaces, the virtual machine and its health. */
import type { StepContext, StepRun } from '../context.ts';
import { isOwn, ownTags } from '../context.ts';
import { FailoverFatal } from '../errors.ts';
import { nicName, vmName } from '../names.ts';

const SERIAL_LOG_LOOKED_AT = 256 * 1024;
const EVIDENCE_LONGEST = 1024;
const UNCHECKED_TIMEOUT_SECONDS = 600;

export const createNics: StepRun = async (context) => {
  const { deps, entry } = context;
  const { target } = entry.document.request;
  const names = target.nics.map((_, index) => nicName(entry.document, index));
  await entry.update({ nics: names.map((name) => ({ name })) });
  const nics: { name: string; id: string }[] = [];
  for (const [index, spec] of target.nics.entries()) {
    const name = names[index] ?? '';
    const ref = { resourceGroup: target.resourceGroup, name };
    const subnet = await deps.compute.subnet(spec);
    if (subnet === undefined)
      throw new FailoverFatal(
        'SubnetNotFound',
        `Subnet ${spec.subnet} of network ${spec.network} in resource group ${spec.resourceGroup} is gone. Create it, or correct the target, and create a new Failover.`,
      );
    refuseForeign(context, `network interface ${name}`, await deps.compute.nic(ref));
    await deps.assertInControl();
    const nic = await deps.compute.createNic(ref, {
      location: target.location,
      subnetId: subnet.id,
      privateIp: spec.privateIp,
      tags: ownTags(entry.document),
    });
    nics.push({ name, id: nic.id });
  }
  await entry.update({ nics });
  return `Made ${nics.length} network interfaces.`;
};

export const createVm: StepRun = async (context) => {
  const { deps, entry } = context;
  const { request, disks = [], nics = [] } = entry.document;
  const name = vmName(entry.document);
  const ref = { resourceGroup: request.target.resourceGroup, name };
  await entry.update({ vm: { name } });
  refuseForeign(context, `virtual machine ${name}`, await deps.compute.vm(ref));
  const [osDisk, ...dataDisks] = disks.map((disk) => disk.managedDisk.id ?? '');
  await deps.assertInControl();
  const vm = await deps.compute.createVm(ref, {
    location: request.target.location,
    size: request.target.size,
    zone: request.target.zone,
    osDiskId: osDisk ?? '',
    osType: request.target.osType,
    dataDisks: dataDisks.map((id, lun) => ({ lun, id })),
    nicIds: nics.map((nic) => nic.id ?? ''),
    tags: ownTags(entry.document),
  });
  await entry.update({ vm: { name, id: vm.id } });
  return `Made virtual machine ${name}.`;
};

/** The machine runs and, when a text was given, has said it on its serial console. RTO ends here. */
export const healthCheck: StepRun = async ({ deps, entry, signal }) => {
  const { document } = entry;
  const ref = { resourceGroup: document.request.target.resourceGroup, name: vmName(document) };
  const check = document.request.healthCheck;
  const since =
    document.steps.find((step) => step.name === 'HealthCheck')?.startedAt ?? deps.clock.now();
  const deadline = since + (check?.timeoutSeconds ?? UNCHECKED_TIMEOUT_SECONDS) * 1000;
  for (;;) {
    const vm = await deps.compute.vm(ref);
    // Nobody asks for the log of a machine that somebody removed: the answer would be an error, which is tried again for ever.
    const isHeard = vm !== undefined && check !== undefined;
    const log = isHeard ? await deps.compute.serialLog(ref) : '';
    const evidence =
      check === undefined ? runningEvidence(vm?.power) : lineWith(log, check.serialContains);
    const now = deps.clock.now();
    if (evidence !== undefined) {
      const rtoSeconds = Math.max(0, now - document.acceptedAt) / 1000;
      await entry.update({ health: { passedAt: now, evidence }, rtoSeconds });
      return check === undefined ? 'The machine runs.' : `The machine said: ${evidence}`;
    }
    if (now > deadline) {
      await entry.update({ health: { evidence: log.slice(-EVIDENCE_LONGEST) } });
      throw new FailoverFatal(
        'HealthCheckFailed',
        `Virtual machine ${ref.name} (${vm?.power ?? 'gone'}) did not pass its health check within ${Math.round((deadline - since) / 1000)} s. It was left as it is: look at its serial console. ${document.request.type === 'Test' ? 'Clean the test up, and try an older recovery point.' : 'Commit it if it is fine.'}`,
      );
    }
    await deps.clock.sleep(deps.pollMs, signal);
  }
};

/** A name that somebody else's resource holds: using it could overwrite or later delete what is not ours. */
function refuseForeign(
  context: StepContext,
  what: string,
  found: { tags: Record<string, string> } | undefined,
): void {
  if (found === undefined || isOwn(context.entry.document, found)) return;
  throw new FailoverFatal(
    'NameInUse',
    `There is a ${what} in resource group ${context.entry.document.request.target.resourceGroup} that this failover did not make. Remove or rename it, or change the target's name, and create a new Failover.`,
  );
}

function runningEvidence(power: string | undefined): string | undefined {
  return power === 'running' ? 'running' : undefined;
}

/** The last line of the log's end that holds the text: what was said since the machine came up this time. */
function lineWith(log: string, text: string): string | undefined {
  const lines = log.slice(-SERIAL_LOG_LOOKED_AT).split(/\r?\n/);
  return lines.findLast((line) => line.includes(text))?.slice(0, EVIDENCE_LONGEST);
}
