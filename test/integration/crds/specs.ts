/** Valid specs of every kind, for tests that break them. */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { parseAllDocuments } from 'yaml';
import type { ResourceType } from '../../../platform/kubernetes.ts';

// biome-ignore lint/suspicious/noExplicitAny: tests break every field of every spec, also into what types forbid
export type Spec = any;
export type Edit = (spec: Spec) => void;
/** What is wrong, how a valid spec becomes so, and what the refusal says. */
export type Case = readonly [what: string, edit: Edit, message: RegExp];

const examples = path.resolve(import.meta.dirname, '../../../docs/examples');

export const recipient = 'farshore-recovery-public-abcdefghijklmnopqrstuvwxyz234567';

export function vaultSpec(): Spec {
  const [document] = parseAllDocuments(
    readFileSync(path.join(examples, 'recoveryvault.yaml'), 'utf8'),
  );
  return { ...document?.toJS().spec, cloud: undefined, recoveryRecipients: [recipient] };
}

export function customCloud(): Spec {
  return {
    resourceManagerEndpoint: 'https://127.0.0.1:1',
    loginEndpoint: 'https://127.0.0.1:1',
    blobEndpoint: 'http://127.0.0.1:1/devstoreaccount1',
  };
}

export function machineSpec(): Spec {
  return {
    source: { agent: {} },
    policyRef: { name: 'standard' },
    vaultRef: { name: 'west-europe' },
    processServerRef: { name: 'branch' },
    disks: [
      { name: 'system', device: '/dev/sda' },
      { name: 'data', device: '/dev/sdb' },
    ],
    target: { name: 'shop', size: 'Standard_D2s_v5' },
  };
}

export function serverSpec(): Spec {
  return {
    vaultRef: { name: 'west-europe' },
    passphraseSecretRef: { name: 'p', key: 'passphrase' },
    image: 'farshore:0.1.0',
    cache: { size: '200Gi', storageClassName: 'fast' },
  };
}

export function externalSpec(): Spec {
  return {
    mode: 'External',
    vaultRef: { name: 'west-europe' },
    passphraseSecretRef: { name: 'p', key: 'passphrase' },
    exposure: { endpoints: ['host.example:9443', '[::1]:9443'] },
  };
}

export function failoverSpec(): Spec {
  return { type: 'Unplanned', machineRef: { name: 'shop' } };
}

export function specOf(type: ResourceType): Spec {
  switch (type.kind) {
    case 'RecoveryVault':
      return vaultSpec();
    case 'ProtectedVM':
      return machineSpec();
    case 'ProcessServer':
      return externalSpec();
    case 'Failover':
      return failoverSpec();
    default:
      return {};
  }
}
