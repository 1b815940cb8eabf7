import type { Case } from './specs.ts';

/** Specs that are refused: what is wrong with them, how a valid one becomes so, and what people are told. */
export const replicationPolicyRefusals: readonly Case[] = [
  [
    'a threshold below the interval',
    (s) => {
      s.rpoThreshold = '30s';
      s.crashConsistentInterval = '5m';
    },
    /rpoThreshold must not be shorter than crashConsistentInterval/,
  ],
  [
    'too short an interval',
    (s) => {
      s.crashConsistentInterval = '14s';
    },
    /crashConsistentInterval must be between 15s and 1h/,
  ],
  [
    'too long an interval',
    (s) => {
      s.crashConsistentInterval = '61m';
      s.rpoThreshold = '2h';
    },
    /crashConsistentInterval must be between 15s and 1h/,
  ],
  [
    'a threshold of days',
    (s) => {
      s.rpoThreshold = '361h';
    },
    /rpoThreshold must be between 15s and 360h/,
  ],
  [
    'too frequent app-consistent points',
    (s) => {
      s.appConsistentInterval = '59m';
    },
    /appConsistentInterval must be between 1h and 12h; leave it out/,
  ],
  [
    'too rare app-consistent points',
    (s) => {
      s.appConsistentInterval = '13h';
    },
    /appConsistentInterval must be between 1h and 12h/,
  ],
  [
    'retention no longer than the app-consistent interval',
    (s) => {
      s.appConsistentInterval = '2h';
      s.retention = '2h';
    },
    /appConsistentInterval must be shorter than retention/,
  ],
  [
    'retention above 15 days',
    (s) => {
      s.retention = '361h';
    },
    /retention must be between 1h and 360h \(15 days\)/,
  ],
  [
    'retention below an hour',
    (s) => {
      s.retention = '59m';
    },
    /retention must be between 1h and 360h/,
  ],
  [
    'hooks that would never run',
    (s) => {
      s.hooks = { directory: '/etc/hooks' };
    },
    /hooks run around app-consistent barriers alone/,
  ],
  [
    'hooks in no absolute directory',
    (s) => {
      s.appConsistentInterval = '1h';
      s.hooks = { directory: 'hooks' };
    },
    /hooks\.directory.*should match/,
  ],
  [
    'hooks that may take for ever',
    (s) => {
      s.appConsistentInterval = '1h';
      s.hooks = { directory: '/h', timeout: '11m' };
    },
    /hooks\.timeout must be between 1s and 10m/,
  ],
  [
    'a duration of two units',
    (s) => {
      s.retention = '1h30m';
    },
    /spec\.retention.*should match/,
  ],
  [
    'a duration without a unit',
    (s) => {
      s.rpoThreshold = '900';
    },
    /spec\.rpoThreshold.*should match/,
  ],
  [
    'a negative duration',
    (s) => {
      s.retention = '-1h';
    },
    /spec\.retention.*should match/,
  ],
  [
    'a resync window in no time of day',
    (s) => {
      s.resyncWindow = { from: '24:00', to: '06:00' };
    },
    /resyncWindow\.from.*should match/,
  ],
  [
    'a resync window without an end',
    (s) => {
      s.resyncWindow = { from: '20:00' };
    },
    /resyncWindow\.to.*Required/,
  ],
  [
    'a resync window on a day that there is not',
    (s) => {
      s.resyncWindow = { from: '20:00', to: '06:00', days: ['Monday'] };
    },
    /resyncWindow\.days.*Unsupported value/,
  ],
  [
    'a first copy that waits',
    (s) => {
      s.resyncWindow = { from: '20:00', to: '06:00', urgent: ['Initial'] };
    },
    /resyncWindow\.urgent.*Unsupported value/,
  ],
  [
    'more verified a day than there is',
    (s) => {
      s.sampledVerification = { sharePerDay: 101 };
    },
    /sampledVerification\.sharePerDay.*less than or equal to 100/,
  ],
];
