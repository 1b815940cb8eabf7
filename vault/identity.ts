/**
 * The names that Farshore's CA puts into certificates, as URI subject alternative names. A certificate has exactly one.
 *
 *   farshore:machine:<machineId>        an agent; may write that machine's journal alone
 *   farshore:processserver:<name>       a process server; agents talk to nobody else
 */
import { machineIdSchema } from './documents/fields.ts';

const MACHINE = 'farshore:machine:';
const PROCESS_SERVER = 'farshore:processserver:';

export function machineIdentity(machineId: string): string {
  return `${MACHINE}${machineId}`;
}

export function processServerIdentity(name: string): string {
  return `${PROCESS_SERVER}${name}`;
}

/** The machine that a certificate with these URI names speaks for; undefined unless there is exactly one name and it is a machine's. */
export function machineOfIdentities(identities: readonly string[]): string | undefined {
  const [identity, ...others] = identities;
  if (others.length > 0 || identity === undefined || !identity.startsWith(MACHINE))
    return undefined;
  const machineId = machineIdSchema.safeParse(identity.slice(MACHINE.length));
  return machineId.success ? machineId.data : undefined;
}

/** Likewise the process server's name. */
export function processServerOfIdentities(identities: readonly string[]): string | undefined {
  const [identity, ...others] = identities;
  if (others.length > 0 || identity === undefined || !identity.startsWith(PROCESS_SERVER))
    return undefined;
  return identity.slice(PROCESS_SERVER.length);
}
