/** One message of every type, with every optional field set: what golden bytes are made from and compared with. */

import { encodeControlRecord, RecordKind } from '../../../dataplane/journal/record.ts';
import {
  encodeAnswer,
  encodeAsk,
  encodeControl,
  encodeData,
} from '../../../dataplane/wire/encoder.ts';
import { FrameType } from '../../../dataplane/wire/messages.ts';

const machineId = '00112233445566778899aabbccddeeff';
const configuration = {
  disks: [{ index: 0, name: 'root', device: '/dev/sda' }],
  paused: false,
  hooks: { directory: '/etc/farshore/hooks', timeoutSeconds: 30 },
  resyncToken: 'again-1',
  final: { failover: 'move-db1', powerOff: true },
};

/** Name of the golden file (`test/golden/wire/v1/<name>.frame`) → the bytes that this build makes. */
export const wireSamples: Record<string, Uint8Array[]> = {
  hello: encodeControl(FrameType.Hello, {
    protocol: { min: 1, max: 1 },
    machineId,
    agentVersion: '0.1.0',
    hostname: 'db1',
    kernel: '6.1.0',
    bootId: '5f0c1d2e-0000-4000-8000-000000000001',
    capturedLsn: 9_007_199_254_740_993n,
    acknowledgedBarrierLsn: 12n,
    cacheId: 'c0ffee',
    tracking: { state: 'Lost', reason: 'AfterReboot', detail: 'booted since' },
    resyncToken: 'again-0',
  }),
  welcome: encodeControl(FrameType.Welcome, {
    protocol: 1,
    writerEpoch: 3,
    cacheId: 'c0ffee',
    journaledLsn: 40n,
    uploadedLsn: 30n,
    lastBarrierLsn: 29n,
    resync: { required: true, reason: 'SourceReverted' },
    creditBytes: 8 << 20,
    configuration,
  }),
  redirect: encodeControl(FrameType.Redirect, { endpoints: ['ps2.example:9443'] }),
  refused: encodeControl(FrameType.Refused, {
    code: 'NotAssigned',
    message: 'no',
    retryAfterMs: 30_000,
  }),
  configure: encodeControl(FrameType.Configure, configuration),
  data: encodeData({
    firstLsn: 41n,
    count: 2,
    records: [
      encodeControlRecord({ kind: RecordKind.ResyncBegin, reason: 'Initial' }),
      encodeControlRecord({ kind: RecordKind.ResyncEnd }),
    ],
  }),
  credit: encodeControl(FrameType.Credit, { bytes: 65_596 }),
  uploaded: encodeControl(FrameType.Uploaded, { uploadedLsn: 42n, barrierLsn: 29n }),
  ask: encodeAsk({
    askId: 7,
    disk: 2,
    firstLeaf: 65_536,
    hashes: Uint8Array.from({ length: 64 }, (_, index) => index),
  }),
  answer: encodeAnswer({ askId: 7, codes: Uint8Array.of(0, 1, 2) }),
  'barrier-prepare': encodeControl(FrameType.BarrierPrepare, {
    id: 5,
    consistency: 'App',
    final: { failover: 'move-db1', powerOff: true },
  }),
  'barrier-ready': encodeControl(FrameType.BarrierReady, { id: 5 }),
  'barrier-freeze': encodeControl(FrameType.BarrierFreeze, { id: 5, timeMs: 1_900_000_000_000 }),
  barrier: encodeControl(FrameType.Barrier, {
    id: 5,
    lsn: 43n,
    disks: [{ index: 0, sizeBytes: 1 << 30 }],
    freezeMs: 55.5,
  }),
  'barrier-acknowledged': encodeControl(FrameType.BarrierAcknowledged, { id: 5, lsn: 43n }),
  'barrier-voided': encodeControl(FrameType.BarrierVoided, {
    id: 5,
    code: 'FreezeTimeout',
    message: 'late',
  }),
  'agent-status': encodeControl(FrameType.AgentStatus, {
    capturedLsn: 43n,
    disks: [
      {
        index: 0,
        device: '/dev/sda',
        sizeBytes: 1 << 30,
        error: { code: 'DiskVanished', message: 'gone' },
      },
    ],
    dirtyBytes: 4096,
    resync: {
      reason: 'Initial',
      bytesTotal: 1 << 30,
      bytesDone: 4096,
      bytesSent: 4096,
      startedMs: 1_900_000_000_000,
      bytesPerSecond: 1.5,
    },
    errors: [{ code: 'TrackingLost', message: 'overrun', sinceMs: 1_900_000_000_000 }],
    resyncToken: 'again-1',
    final: { failover: 'move-db1', poweredOff: false },
  }),
  heartbeat: encodeControl(FrameType.Heartbeat, { timeMs: 1_900_000_000_000 }),
  'enrol-begin': encodeControl(FrameType.EnrolBegin, { name: 'db1' }),
  'enrol-nonce': encodeControl(FrameType.EnrolNonce, { nonce: 'ab'.repeat(32) }),
  'enrol-request': encodeControl(FrameType.EnrolRequest, {
    name: 'db1',
    csrPem: '-----BEGIN CERTIFICATE REQUEST-----\n',
    mac: 'cd'.repeat(32),
    disks: [{ device: '/dev/sda', sizeBytes: 1 << 30, description: 'Virtio Disk' }],
  }),
  'enrol-answer': encodeControl(FrameType.EnrolAnswer, {
    outcome: 'accepted',
    certificatePem: '-----BEGIN CERTIFICATE-----\n',
    caCertificatePem: '-----BEGIN CERTIFICATE-----\n',
    machineId,
    mac: 'ef'.repeat(32),
    nonce: 'ab'.repeat(32),
  }),
};
