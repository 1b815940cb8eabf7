import { type Case, customCloud, recipient } from './specs.ts';

/** Specs that are refused: what is wrong with them, how a valid one becomes so, and what people are told. */
export const recoveryVaultRefusals: readonly Case[] = [
  [
    'a Custom cloud without endpoints',
    (s) => {
      s.cloud = { type: 'Custom' };
    },
    /cloud\.custom holds the endpoints of a cloud of type Custom/,
  ],
  [
    'endpoints for a cloud that has its own',
    (s) => {
      s.cloud = { type: 'AzureChina', custom: customCloud() };
    },
    /cloud\.custom holds the endpoints of a cloud of type Custom/,
  ],
  [
    'an unknown cloud',
    (s) => {
      s.cloud = { type: 'AzureGermany' };
    },
    /supported values: "AzurePublic", "AzureUSGovernment", "AzureChina", "Custom"/,
  ],
  [
    'a Resource Manager without TLS',
    (s) => {
      s.cloud = {
        type: 'Custom',
        custom: { ...customCloud(), resourceManagerEndpoint: 'http://arm' },
      };
    },
    /resourceManagerEndpoint.*should match/,
  ],
  [
    'a CA bundle that is no PEM',
    (s) => {
      s.cloud = { type: 'Custom', custom: { ...customCloud(), caBundle: 'MIIB' } };
    },
    /caBundle.*should match/,
  ],
  [
    'an account whose id is another account’s',
    (s) => {
      s.storageAccount.name = 'other';
    },
    /storageAccount\.resourceId must be the id of the account that storageAccount\.name names/,
  ],
  [
    'no credentials',
    (s) => {
      s.credentials = {};
    },
    /credentials\.servicePrincipal: Required value/,
  ],
  [
    'no recovery recipients',
    (s) => {
      s.recoveryRecipients = [];
    },
    /should have at least 1 items/,
  ],
  [
    'one recipient twice',
    (s) => {
      s.recoveryRecipients = [recipient, recipient];
    },
    /Duplicate value/,
  ],
  [
    'a private recovery key',
    (s) => {
      s.recoveryRecipients = ['farshore-recovery-private-abc'];
    },
    /This is a private recovery key/,
  ],
  [
    'something that is no recovery key',
    (s) => {
      s.recoveryRecipients = ['age1xyz'];
    },
    /the public half of a recovery key/,
  ],
  [
    'a test network that is the production network',
    (s) => {
      s.networks.test = s.networks.production;
    },
    /networks\.test must differ from networks\.production/,
  ],
  [
    'a test subnet that is the production subnet by another way of writing',
    (s) => {
      s.networks.production.resourceGroup = 'net';
      s.networks.test = { ...s.networks.production };
    },
    /networks\.test must differ/,
  ],
  [
    'a prefix with slashes around it',
    (s) => {
      s.prefix = '/a/';
    },
    /spec\.prefix.*should match/,
  ],
  [
    'epoch 0',
    (s) => {
      s.takeControlFromEpoch = 0;
    },
    /should be greater than or equal to 1/,
  ],
];

/** Changes that are refused. */
export const recoveryVaultChanges: readonly Case[] = [
  [
    'the container',
    (s) => {
      s.containerName = 'other';
    },
    /A vault's place .* can't change/,
  ],
  [
    'the prefix',
    (s) => {
      s.prefix = 'other';
    },
    /A vault's place .* can't change/,
  ],
  [
    'the account',
    (s) => {
      s.storageAccount = {
        name: 'other',
        resourceId: s.storageAccount.resourceId.replace('farshorevault', 'other'),
      };
    },
    /A vault's place .* can't change/,
  ],
  [
    'its recipients',
    (s) => {
      s.recoveryRecipients.push(`${recipient}a`);
    },
    /recoveryRecipients can't change, because every key in the vault is sealed for these/,
  ],
];
