/** The control API over HTTPS: POST /_control/<operation> with the operation's argument as JSON. */
import type { Answer } from './call.ts';
import type { EmulatorSettings, StorageAccount } from './context.ts';
import type { EmulatorControl } from './emulator.ts';
import type { Fault } from './faults.ts';
import type { SeedNetwork } from './networks.ts';

export async function answerControl(
  control: EmulatorControl,
  method: string,
  url: URL,
  body: string,
): Promise<Answer> {
  if (method !== 'POST') return { status: 405, body: { message: 'POST only' } };
  const argument: unknown = body === '' ? undefined : JSON.parse(body);
  // Both ends are this repository's tests: the argument is what client.ts sent.
  const operations: Record<keyof EmulatorControl, () => Promise<unknown>> = {
    addFault: () => control.addFault(argument as Fault),
    clearFaults: () => control.clearFaults(),
    change: () => control.change(argument as Partial<EmulatorSettings>),
    addStorageAccount: () => control.addStorageAccount(argument as StorageAccount),
    addResourceGroup: () =>
      control.addResourceGroup(argument as { name: string; location: string }),
    addNetwork: () => control.addNetwork(argument as SeedNetwork),
    calls: () => control.calls(),
    creations: () => control.creations(),
    resources: () => control.resources(),
  };
  const name = url.pathname.slice('/_control/'.length);
  const operation = Object.hasOwn(operations, name)
    ? operations[name as keyof EmulatorControl]
    : undefined;
  if (operation === undefined) return { status: 404, body: { message: `no operation ${name}` } };
  return { status: 200, body: (await operation()) ?? null };
}
