/** The stand-ins of the demonstration, when one of them can't be had. */
import {
  chmodSync,
  globSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { startCloud } from '../../hack/demonstration/cloud.ts';
import { Undo } from '../../hack/demonstration/undo.ts';

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(path.join(os.tmpdir(), 'farshore-cloud-'));
});

afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true, force: true });
});

/** Whose command line names the folder. */
function processesIn(place: string): string[] {
  return globSync('/proc/[0-9]*/cmdline').flatMap((file) => {
    try {
      const command = readFileSync(file, 'utf8').replaceAll('\0', ' ');
      return command.includes(place) ? [command] : [];
    } catch {
      return [];
    }
  });
}

test('a Kubernetes that does not start leaves no Azurite behind', async () => {
  const binaries = path.join(folder, 'binaries');
  mkdirSync(binaries);
  for (const name of ['kube-apiserver', 'etcd', 'kubectl']) {
    writeFileSync(path.join(binaries, name), '#!/bin/sh\nexit 1\n');
    chmodSync(path.join(binaries, name), 0o755);
  }
  vi.stubEnv('KUBEBUILDER_ASSETS', binaries);
  const undo = new Undo();
  await expect(startCloud({ folder, undo })).rejects.toThrow(/ended/);
  expect(processesIn(path.join(folder, 'azurite'))).toHaveLength(1);
  expect(await undo.all()).toEqual([]);
  expect(processesIn(path.join(folder, 'azurite'))).toEqual([]);
});
