import type { ProcessServer, ProtectedVM } from '../../crds/index.ts';
import { type Environment, namespaceOf } from '../environment.ts';

/** The machines that name the process server, those being deleted too. */
export function machinesOf(
  { caches }: Pick<Environment, 'caches'>,
  server: ProcessServer,
): ProtectedVM[] {
  return caches.machines
    .list()
    .filter(
      (machine) =>
        namespaceOf(machine) === namespaceOf(server) &&
        machine.spec.processServerRef.name === server.metadata.name,
    );
}
