/** What process servers, appliers and agents do around an operator: they ask to be taken in, read their list, report. */
import { createHash } from 'node:crypto';
import { type KubeClient, kubeTypes, type SecretObject } from '../../platform/kubernetes.ts';
import { systemClock } from '../../platform/node/clock.ts';
import { systemRandom } from '../../platform/node/random.ts';
import type { ObjectStore } from '../../platform/ports.ts';
import { createCertificateRequest } from '../../vault/authority.ts';
import { type Bootstrap, decodeBootstrap } from '../../vault/bootstrap.ts';
import { trustedControllers } from '../../vault/controllerTrust.ts';
import {
  type AssignmentsDocument,
  assignmentsDocumentSchema,
} from '../../vault/documents/assignments.ts';
import { decodeDocument, encodeDocument } from '../../vault/documents/codec.ts';
import {
  type EnrolmentAnswer,
  enrolmentAnswerSchema,
  enrolmentRequestSchema,
} from '../../vault/documents/enrolment.ts';
import type { MachineStatus } from '../../vault/documents/machineStatus.ts';
import { pointDocumentSchema } from '../../vault/documents/point.ts';
import {
  type ProcessServerStatus,
  processServerStatusSchema,
} from '../../vault/documents/processServerStatus.ts';
import {
  agentRequestMac,
  passphraseKey,
  tokenKey,
  tokenRequestMac,
} from '../../vault/enrolmentProof.ts';
import { encodePublicKey, generateBoxKey } from '../../vault/keys.ts';
import { vaultLayout } from '../../vault/layout.ts';
import { openSigned } from '../../vault/signing.ts';
import { requireVault } from '../../vault/vault.ts';
import { PASSPHRASE } from './manifests.ts';
import { eventually } from './waiting.ts';

export async function bootstrapOf(
  kube: KubeClient,
  secretName: string,
  namespace = 'default',
): Promise<Bootstrap> {
  return await eventually(async () => {
    const found = await kube.get<SecretObject>(kubeTypes.secret, { namespace, name: secretName });
    const text = found?.data?.['bootstrap.json'];
    if (text === undefined) throw new Error(`Secret ${secretName} is not there yet`);
    return decodeBootstrap(Buffer.from(text, 'base64').toString());
  });
}

export async function awaitAnswer(objects: ObjectStore, id: string): Promise<EnrolmentAnswer> {
  const key = vaultLayout.enrolmentAnswer(id);
  return await eventually(async () => {
    const stored = await objects.get(key);
    if (stored === undefined) throw new Error(`enrolment ${id} is not answered yet`);
    return decodeDocument(enrolmentAnswerSchema, key, stored.body);
  });
}

/** Asks as a process server or applier does. */
export async function askWithToken(
  objects: ObjectStore,
  bootstrap: Bootstrap,
  options: { kind?: 'processserver' | 'applier'; name?: string } = {},
) {
  const { kind = 'processserver', name = bootstrap.name } = options;
  const request = await createCertificateRequest({ random: systemRandom }, { commonName: name });
  const box = generateBoxKey(systemRandom);
  const key = tokenKey(bootstrap.token);
  const encryptionKey = encodePublicKey(box.publicKey);
  const id = createHash('sha256').update(request.csrDer).digest('hex');
  await objects.putIfAbsent(
    vaultLayout.enrolment(id),
    encodeDocument(enrolmentRequestSchema, {
      kind,
      name,
      requestedAt: systemClock.now(),
      csrPem: request.csrPem,
      tokenMac: tokenRequestMac({ key, csrDer: request.csrDer, name, encryptionKey }),
      encryptionKey,
    }),
  );
  return { id, key, box, request };
}

/** Asks as an agent does, through a process server. */
export async function askAsAgent(
  objects: ObjectStore,
  options: { name: string; via: string; passphrase?: string },
) {
  const { name, via, passphrase = PASSPHRASE } = options;
  const request = await createCertificateRequest({ random: systemRandom }, { commonName: name });
  const nonce = Buffer.from(systemRandom.bytes(32)).toString('hex');
  const key = passphraseKey({ passphrase, nonce });
  const id = createHash('sha256').update(request.csrDer).digest('hex');
  await objects.putIfAbsent(
    vaultLayout.enrolment(id),
    encodeDocument(enrolmentRequestSchema, {
      kind: 'agent',
      name,
      via,
      requestedAt: systemClock.now(),
      csrPem: request.csrPem,
      proof: { nonce, mac: agentRequestMac({ key, csrDer: request.csrDer, name }) },
      disks: [{ device: '/dev/sda', sizeBytes: 8 << 20, description: 'a disk' }],
    }),
  );
  return { id, key, request };
}

/** The list as a process server accepts it: signed by a key that the pinned one vouches for. Undefined while there is none. */
export async function readList(
  objects: ObjectStore,
  options: { processServer: string; pinned: string },
): Promise<AssignmentsDocument | undefined> {
  const key = vaultLayout.assignments(options.processServer);
  const stored = await objects.get(key);
  if (stored === undefined) return undefined;
  const { document: vault } = await requireVault(objects);
  return openSigned({
    key,
    bytes: stored.body,
    schema: assignmentsDocumentSchema,
    trusted: trustedControllers({ vault, pinned: options.pinned }),
  }).document;
}

/** Process server ps's list, which must be there. */
export async function listOf(objects: ObjectStore, pinned: string): Promise<AssignmentsDocument> {
  const list = await readList(objects, { processServer: 'ps', pinned });
  if (list === undefined) throw new Error('there is no list yet');
  return list;
}

export async function reportStatus(
  objects: ObjectStore,
  name: string,
  machines: MachineStatus[] = [],
  change: Partial<ProcessServerStatus> = {},
): Promise<void> {
  const status: ProcessServerStatus = {
    name,
    version: '1.0.0',
    formatVersion: 1,
    heartbeatMs: systemClock.now(),
    clockOffsetMs: 0,
    cache: { totalBytes: 1000, freeBytes: 900 },
    throughput: { inBytesPerSecond: 10, outBytesPerSecond: 20 },
    endpoints: ['ps.example:9443'],
    machines,
    ...change,
  };
  await objects.put(
    vaultLayout.processServerStatus(name),
    encodeDocument(processServerStatusSchema, status),
  );
}

export function machineReport(
  machineId: string,
  change: Partial<MachineStatus> = {},
): MachineStatus {
  return {
    machineId,
    writerEpoch: 1,
    agent: { connected: true, lastSeenMs: systemClock.now(), version: '1.0.0', hostname: 'web' },
    disks: [{ index: 0, sizeBytes: 8 << 20 }],
    positions: { capturedLsn: 30n, journaledLsn: 20n, uploadedLsn: 10n },
    barriers: { count: 1, voided: 0, lastFreezeMs: 12.5, maxFreezeMs: 40.1 },
    backlog: { agentBytes: 4096, cacheBytes: 8192 },
    errors: [],
    ...change,
  };
}

/** A recovery point as an applier leaves it, as far as operators look at it. */
export async function putPoint(objects: ObjectStore, machineId: string, lsn = 12n): Promise<void> {
  const snapshot = { key: 'replica', snapshot: 'then' };
  await objects.putIfAbsent(
    vaultLayout.point(machineId, lsn),
    encodeDocument(pointDocumentSchema, {
      machineId,
      lsn,
      timeMs: systemClock.now() - 20_000,
      consistency: 'Crash',
      segment: { seq: 0, digest: 'a'.repeat(64), writerEpoch: 1 },
      disks: [
        {
          index: 0,
          name: 'system',
          sizeBytes: 8 << 20,
          root: 'b'.repeat(64),
          replica: snapshot,
          leaves: snapshot,
        },
      ],
      createdAt: systemClock.now(),
    }),
  );
}
