#!/usr/bin/env node
/**
 * The ARM emulator as a process: `main.ts --state DIR [--port N] [--host ADDRESS] [--remove-state]`, or
 * `main.ts --configuration FILE` with EmulatorOptions as JSON. Prints one line of JSON when it listens. SIGTERM and SIGINT end it and
 * its machines; so does anything else that ends it.
 */
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import type { EmulatorAnnouncement } from './client.ts';
import {
  type EmulatorOptions,
  emulatorDefaults,
  removeEmulatorState,
  startEmulator,
} from './emulator.ts';

const { values } = parseArgs({
  options: {
    configuration: { type: 'string' },
    state: { type: 'string' },
    port: { type: 'string' },
    host: { type: 'string' },
    'remove-state': { type: 'boolean' },
  },
});
const options = readOptions();
const emulator = await startEmulator(options);

const announcement: EmulatorAnnouncement = {
  url: emulator.url,
  caFile: emulator.caFile,
  pid: process.pid,
  tenantId: options.tenantId ?? emulatorDefaults.tenantId,
  clientId: options.clientId ?? emulatorDefaults.clientId,
  clientSecret: options.clientSecret ?? emulatorDefaults.clientSecret,
  subscriptionId: options.subscriptionId ?? emulatorDefaults.subscriptionId,
};
console.log(JSON.stringify(announcement));

let ending = false;
for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => void end());

async function end(): Promise<void> {
  if (ending) return;
  ending = true;
  await emulator.close();
  if (options.removeState === true) removeEmulatorState(options.directory);
  process.exit(0);
}

function readOptions(): EmulatorOptions & { removeState?: boolean } {
  if (values.configuration !== undefined)
    return JSON.parse(readFileSync(values.configuration, 'utf8')) as EmulatorOptions;
  if (values.state === undefined) {
    console.error('usage: main.ts --state DIR [--port N] [--host ADDRESS] [--remove-state]');
    process.exit(2);
  }
  return {
    directory: values.state,
    port: Number(values.port ?? 0),
    removeState: values['remove-state'] === true,
    ...(values.host === undefined ? {} : { host: values.host }),
  };
}
