import { type Case, externalSpec } from './specs.ts';

/** Specs that are refused: what is wrong with them, how a valid one becomes so, and what people are told. */
export const processServerRefusals: readonly Case[] = [
  [
    'a StatefulSet without a cache',
    (s) => {
      s.cache = undefined;
    },
    /mode StatefulSet needs cache and image/,
  ],
  [
    'a StatefulSet without an image',
    (s) => {
      s.image = undefined;
    },
    /mode StatefulSet needs cache and image/,
  ],
  [
    'fewer endpoints than replicas',
    (s) => {
      s.replicas = 2;
      s.exposure = { endpoints: ['a:1'] };
    },
    /exposure\.endpoints names one endpoint for each replica/,
  ],
  [
    'no replicas',
    (s) => {
      s.replicas = 0;
    },
    /should be greater than or equal to 1/,
  ],
  [
    'a port that is none',
    (s) => {
      s.port = 70000;
    },
    /should be less than or equal to 65535/,
  ],
  [
    'a cache size that is no size',
    (s) => {
      s.cache.size = 'large';
    },
    /cache\.size.*should match/,
  ],
  [
    'no vault',
    (s) => {
      s.vaultRef = undefined;
    },
    /spec\.vaultRef: Required value/,
  ],
  [
    'no passphrase',
    (s) => {
      s.passphraseSecretRef = undefined;
    },
    /spec\.passphraseSecretRef: Required value/,
  ],
  [
    'an unknown type of Service',
    (s) => {
      s.exposure = { serviceType: 'ExternalName' };
    },
    /supported values: "ClusterIP", "NodePort", "LoadBalancer"/,
  ],
  [
    'an endpoint without a port',
    (s) => {
      s.exposure = { endpoints: ['host'] };
    },
    /endpoints\[0\].*should match/,
  ],
  [
    'a limit that would let nothing through',
    (s) => {
      s.bandwidth = { limit: '511k' };
    },
    /bandwidth\.limit must be at least 512k/,
  ],
  [
    'a limit that is no rate',
    (s) => {
      s.bandwidth = { limit: '50Mi' };
    },
    /bandwidth\.limit.*should match/,
  ],
  [
    'a window with a limit that would let nothing through',
    (s) => {
      s.bandwidth = { windows: [{ from: '08:00', to: '18:00', limit: '1k' }] };
    },
    /limit must be at least 512k/,
  ],
  [
    'a window on a day that is none',
    (s) => {
      s.bandwidth = { windows: [{ days: ['Monday'], from: '08:00', to: '18:00' }] };
    },
    /supported values: "Mon"/,
  ],
  [
    'a window that ends at no time of day',
    (s) => {
      s.bandwidth = { windows: [{ from: '08:00', to: '24:00' }] };
    },
    /windows\[0\]\.to.*should match/,
  ],
  [
    'a window without a beginning',
    (s) => {
      s.bandwidth = { windows: [{ to: '18:00' }] };
    },
    /windows\[0\]\.from: Required value/,
  ],
];

/** Specs that are refused: what is wrong with them, how a valid one becomes so, and what people are told. */
export const externalRefusals: readonly Case[] = [
  [
    'a cache',
    (s) => {
      s.cache = { size: '1Gi' };
    },
    /cache, image and resources belong to mode StatefulSet/,
  ],
  [
    'an image',
    (s) => {
      s.image = 'x';
    },
    /cache, image and resources belong to mode StatefulSet/,
  ],
  [
    'resources',
    (s) => {
      s.resources = { limits: { cpu: '1' } };
    },
    /cache, image and resources belong to mode StatefulSet/,
  ],
  [
    'replicas',
    (s) => {
      s.replicas = 2;
    },
    /An External process server is one host/,
  ],
  [
    'no endpoints',
    (s) => {
      s.exposure = undefined;
    },
    /An External process server needs exposure\.endpoints/,
  ],
  [
    'a Service',
    (s) => {
      s.exposure.serviceType = 'NodePort';
    },
    /no Service is made for an External process server/,
  ],
];

/** Changes that are refused. */
export const processServerChanges: readonly Case[] = [
  [
    'its mode',
    (s) => {
      Object.assign(s, externalSpec(), { cache: undefined, image: undefined });
    },
    /mode can't change/,
  ],
  [
    'its vault',
    (s) => {
      s.vaultRef.name = 'other';
    },
    /vaultRef can't change\. Create another ProcessServer/,
  ],
  [
    'its cache’s size, downwards',
    (s) => {
      s.cache.size = '199Gi';
    },
    /cache\.size can only grow/,
  ],
  [
    'its storage class',
    (s) => {
      s.cache.storageClassName = 'slow';
    },
    /cache\.storageClassName can't change/,
  ],
  [
    'having a storage class',
    (s) => {
      s.cache.storageClassName = undefined;
    },
    /cache\.storageClassName can't be set or removed later/,
  ],
];
