import type { Case } from './specs.ts';

/** Specs that are refused: what is wrong with them, how a valid one becomes so, and what people are told. */
export const protectedVMRefusals: readonly Case[] = [
  [
    'no source',
    (s) => {
      s.source = {};
    },
    /spec\.source\.agent: Required value/,
  ],
  [
    'no disks',
    (s) => {
      s.disks = [];
    },
    /spec\.disks.*should have at least 1 items/,
  ],
  [
    'two disks of one name',
    (s) => {
      s.disks[1].name = 'system';
    },
    /Duplicate value/,
  ],
  [
    'two disks of one device',
    (s) => {
      s.disks[1].device = s.disks[0].device;
    },
    /Each of the disks must have a device of its own/,
  ],
  [
    'a disk that is no device',
    (s) => {
      s.disks[0].device = '/etc/passwd';
    },
    /device.*should match/,
  ],
  [
    'a disk name that Azure would not take',
    (s) => {
      s.disks[0].name = 'System_1';
    },
    /name.*should match/,
  ],
  [
    'a nic with half a network',
    (s) => {
      s.target.nics = [{ network: 'recovery' }];
    },
    /A nic names both network and subnet, or neither/,
  ],
  [
    'a nic with a resource group of nothing',
    (s) => {
      s.target.nics = [{ resourceGroup: 'net' }];
    },
    /A nic's resourceGroup is that of its network/,
  ],
  [
    'no nics at all',
    (s) => {
      s.target.nics = [];
    },
    /nics.*should have at least 1 items/,
  ],
  [
    'an address that is none',
    (s) => {
      s.target.nics = [{ ip: '10.0.0.999' }];
    },
    /ip must be an IPv4 address/,
  ],
  [
    'an IPv6 address',
    (s) => {
      s.target.nics = [{ ip: 'fe80::1' }];
    },
    /ip must be an IPv4 address/,
  ],
  [
    'a tag of ours',
    (s) => {
      s.target.tags = { 'farshore-failover': 'x' };
    },
    /Tags that start with farshore are Farshore's own/,
  ],
  [
    'a tag that Azure refuses',
    (s) => {
      s.target.tags = { 'a/b': 'x' };
    },
    /none of < > % & \? \/ \\/,
  ],
  [
    'a generation that does not exist',
    (s) => {
      s.target.generation = 'V3';
    },
    /supported values: "V1", "V2"/,
  ],
  [
    'a disk type that does not exist',
    (s) => {
      s.target.diskType = 'Floppy';
    },
    /supported values: "Standard_LRS"/,
  ],
];

/** Changes that are refused. */
export const protectedVMChanges: readonly Case[] = [
  [
    'its vault',
    (s) => {
      s.vaultRef.name = 'other';
    },
    /vaultRef can't change, because the machine's copy is in that vault/,
  ],
  [
    'its disks, one more',
    (s) => {
      s.disks.push({ name: 'more', device: '/dev/sdc' });
    },
    /disks can't be added, removed or renamed/,
  ],
  [
    'its disks, one less',
    (s) => {
      s.disks.pop();
    },
    /disks can't be added, removed or renamed/,
  ],
  [
    'a disk’s name',
    (s) => {
      s.disks[1].name = 'other';
    },
    /disks can't be added, removed or renamed/,
  ],
  [
    'which disk is first',
    (s) => {
      s.disks.reverse();
    },
    /nor may another become the first/,
  ],
];
