import type { Case } from './specs.ts';

/** Specs that are refused: what is wrong with them, how a valid one becomes so, and what people are told. */
export const failoverRefusals: readonly Case[] = [
  [
    'no type',
    (s) => {
      s.type = undefined;
    },
    /spec\.type: Required value/,
  ],
  [
    'an unknown type',
    (s) => {
      s.type = 'Rehearsal';
    },
    /supported values: "Test", "Planned", "Unplanned"/,
  ],
  [
    'type Time without a time',
    (s) => {
      s.recoveryPoint = { type: 'Time' };
    },
    /recoveryPoint\.time goes with type Time/,
  ],
  [
    'a time without type Time',
    (s) => {
      s.recoveryPoint = { time: '2026-01-01T00:00:00Z' };
    },
    /recoveryPoint\.time goes with type Time/,
  ],
  [
    'type Name without a name',
    (s) => {
      s.recoveryPoint = { type: 'Name' };
    },
    /recoveryPoint\.name goes with type Name/,
  ],
  [
    'a name without type Name',
    (s) => {
      s.recoveryPoint = { type: 'Latest', name: '7' };
    },
    /recoveryPoint\.name goes with type Name/,
  ],
  [
    'a time that is none',
    (s) => {
      s.recoveryPoint = { type: 'Time', time: 'yesterday' };
    },
    /recoveryPoint\.time.*date-time/,
  ],
  [
    'a Planned failover to an older point',
    (s) => {
      s.type = 'Planned';
      s.recoveryPoint = { type: 'LatestProcessed' };
    },
    /A Planned failover recovers the last barrier, which it makes itself/,
  ],
  [
    'powering off the source of an Unplanned one',
    (s) => {
      s.powerOffSource = true;
    },
    /powerOffSource belongs to Planned failovers/,
  ],
  [
    'committing a Test',
    (s) => {
      s.type = 'Test';
      s.desiredState = 'Committed';
    },
    /A Test failover can't be committed/,
  ],
  [
    'cleaning up production',
    (s) => {
      s.desiredState = 'CleanedUp';
    },
    /Only a Test failover can be cleaned up/,
  ],
  [
    'an unknown desired state',
    (s) => {
      s.desiredState = 'RolledBack';
    },
    /supported values: "Committed", "CleanedUp"/,
  ],
  [
    'a health check of nothing',
    (s) => {
      s.healthCheck = {};
    },
    /healthCheck\.serialConsole: Required value/,
  ],
  [
    'a health check that waits for ever',
    (s) => {
      s.healthCheck = { serialConsole: { contains: 'x', timeout: '3h' } };
    },
    /healthCheck\.serialConsole\.timeout must be between 10s and 2h/,
  ],
  [
    'half a verification',
    (s) => {
      s.verify = 'Sampled';
    },
    /supported values: "Full", "None"/,
  ],
];

export const immutable = /A Failover happens once and can't change, but for desiredState/;

/** Changes that are refused. */
export const failoverChanges: readonly Case[] = [
  [
    'its type',
    (s) => {
      s.type = 'Test';
    },
    immutable,
  ],
  [
    'its machine',
    (s) => {
      s.machineRef.name = 'other';
    },
    immutable,
  ],
  [
    'its recovery point',
    (s) => {
      s.recoveryPoint = { type: 'LatestProcessed' };
    },
    immutable,
  ],
  [
    'its verification',
    (s) => {
      s.verify = 'None';
    },
    immutable,
  ],
  [
    'its health check',
    (s) => {
      s.healthCheck = { serialConsole: { contains: 'x' } };
    },
    immutable,
  ],
];
