/** From a Failover resource to the ledger's entry: everything is resolved now, so that later changes of other resources do nothing. */
import type { Failover, ProtectedVM, RecoveryVault } from '../../crds/index.ts';
import type { Random } from '../../platform/ports.ts';
import type { FailoverDocument, FailoverRequest } from '../../vault/documents/failover.ts';
import { durationSeconds, namespaceOf } from '../environment.ts';
import type { ControlledVault } from '../openvaults/openVaults.ts';
import { resolveTarget } from '../protectedvm/target.ts';

export function requestOf(input: {
  failover: Failover;
  machine: ProtectedVM;
  machineId: string;
  vault: RecoveryVault;
}): FailoverRequest {
  const { failover, machine, machineId, vault } = input;
  const { spec } = failover;
  const console = spec.healthCheck?.serialConsole;
  return {
    type: spec.type,
    machineId,
    machineName: machine.metadata.name,
    recoveryPoint: pointOf(spec.recoveryPoint),
    powerOffSource: spec.type === 'Planned' && (spec.powerOffSource ?? true),
    verify: spec.verify,
    ...(console === undefined
      ? {}
      : {
          healthCheck: {
            serialContains: console.contains,
            timeoutSeconds: durationSeconds(console.timeout),
          },
        }),
    target: resolveTarget(machine, vault, spec.type === 'Test' ? 'Test' : 'Production'),
  };
}

function pointOf(point: Failover['spec']['recoveryPoint']): FailoverRequest['recoveryPoint'] {
  switch (point.type) {
    case 'Time':
      return { type: 'Time', timeMs: Date.parse(point.time ?? '') };
    case 'Name':
      return { type: 'Name', name: point.name ?? '' };
    default:
      return { type: point.type };
  }
}

export function firstEntry(
  deps: { random: Random; now: number },
  vault: ControlledVault,
  input: { failover: Failover; request: FailoverRequest },
): FailoverDocument {
  const { failover, request } = input;
  return {
    name: failover.metadata.name,
    failoverId: Buffer.from(deps.random.bytes(16)).toString('hex'),
    namespace: namespaceOf(failover),
    uid: failover.metadata.uid ?? '',
    installationId: vault.installation.id,
    request,
    acceptedAt: deps.now,
    outcome: 'Running',
    steps: [],
  };
}
