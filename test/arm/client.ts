/** The emulator as a process of its own, and its control API from here. */
import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { request } from 'node:https';
import path from 'node:path';
import { createInterface } from 'node:readline';
import type { EmulatorControl, EmulatorOptions } from './emulator.ts';

/** What main.ts prints when it listens. */
export interface EmulatorAnnouncement {
  url: string;
  caFile: string;
  pid: number;
  tenantId: string;
  clientId: string;
  clientSecret: string;
  subscriptionId: string;
}

export interface EmulatorProcess extends EmulatorAnnouncement {
  ca: string;
  control: EmulatorControl;
  process: ChildProcess;
  /** SIGTERM, and waits: its machines are off then. */
  stop(): Promise<void>;
}

const START_MS = 30_000;

/** Starts `main.ts`; rejects with what it complained about when it does not listen within 30 s. */
export async function spawnEmulator(
  options: EmulatorOptions & { removeState?: boolean },
): Promise<EmulatorProcess> {
  const configuration = `${options.directory}.json`;
  writeFileSync(configuration, JSON.stringify(options), { mode: 0o600 });
  const child = spawn(
    process.execPath,
    [path.join(import.meta.dirname, 'main.ts'), '--configuration', configuration],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  const announcement = await firstLine(child);
  const ca = readFileSync(announcement.caFile, 'utf8');
  return {
    ...announcement,
    ca,
    process: child,
    control: remoteControl({ url: announcement.url, ca }),
    stop: async () => {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const exited = new Promise((resolve) => child.once('exit', resolve));
      child.kill('SIGTERM');
      await exited;
    },
  };
}

/** Controls an emulator that runs elsewhere. */
export function remoteControl(at: { url: string; ca: string }): EmulatorControl {
  const call =
    <T>(operation: keyof EmulatorControl) =>
    (argument?: unknown) =>
      post(at, operation, argument) as Promise<T>;
  return {
    addFault: call('addFault'),
    clearFaults: call('clearFaults'),
    change: call('change'),
    addStorageAccount: call('addStorageAccount'),
    addResourceGroup: call('addResourceGroup'),
    addNetwork: call('addNetwork'),
    calls: call('calls'),
    creations: call('creations'),
    resources: call('resources'),
  };
}

function firstLine(child: ChildProcess): Promise<EmulatorAnnouncement> {
  return new Promise((resolve, reject) => {
    const fail = (why: string) => {
      clearTimeout(timer);
      child.kill('SIGKILL');
      reject(new Error(`The ARM emulator did not start: ${why}`));
    };
    const timer = setTimeout(() => fail('no line within 30 s'), START_MS);
    child.once('exit', (code) => fail(`it ended with ${code}`));
    if (child.stdout === null) return fail('no output to read');
    createInterface(child.stdout).once('line', (line) => {
      clearTimeout(timer);
      child.removeAllListeners('exit');
      resolve(JSON.parse(line) as EmulatorAnnouncement);
    });
  });
}

function post(
  at: { url: string; ca: string },
  operation: string,
  argument: unknown,
): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const sent = request(
      `${at.url}/_control/${operation}`,
      { method: 'POST', ca: at.ca, agent: false },
      (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('end', () => {
          const text = Buffer.concat(chunks).toString('utf8');
          if (response.statusCode === 200) resolve(JSON.parse(text));
          else reject(new Error(`${operation}: ${response.statusCode} ${text}`));
        });
      },
    );
    sent.on('error', reject);
    sent.end(argument === undefined ? '' : JSON.stringify(argument));
  });
}
