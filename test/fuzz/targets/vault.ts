import { FarshoreError } from '../../../platform/errors.ts';
import { decodeBootstrap } from '../../../vault/bootstrap.ts';
import { applierStatusSchema } from '../../../vault/documents/applierStatus.ts';
import { assignmentsDocumentSchema } from '../../../vault/documents/assignments.ts';
import { catalogDocumentSchema } from '../../../vault/documents/catalog.ts';
import {
  decodeDocument,
  encodeDocument,
  VaultDocumentError,
} from '../../../vault/documents/codec.ts';
import { controllerDocumentSchema } from '../../../vault/documents/controller.ts';
import {
  enrolmentAnswerSchema,
  enrolmentRequestSchema,
} from '../../../vault/documents/enrolment.ts';
import { failoverDocumentSchema } from '../../../vault/documents/failover.ts';
import { nameClaimSchema } from '../../../vault/documents/nameClaim.ts';
import { pointDocumentSchema } from '../../../vault/documents/point.ts';
import { processServerStatusSchema } from '../../../vault/documents/processServerStatus.ts';
import { recoveryCheckSchema } from '../../../vault/documents/recoveryCheck.ts';
import { registrationSchema } from '../../../vault/documents/registration.ts';
import { replicaStateSchema } from '../../../vault/documents/replicaState.ts';
import { signedSchema } from '../../../vault/documents/signed.ts';
import { trimMarkSchema } from '../../../vault/documents/trimMark.ts';
import { vaultDocumentSchema } from '../../../vault/documents/vault.ts';
import { decodeKeyString, encodeKeyString, KeyStringError } from '../../../vault/keyStrings.ts';
import { boxKeyFromSeed, KeyError, openSealedKey, sealKey } from '../../../vault/keys.ts';
import { SeededRandom } from '../../fakes/seededRandom.ts';
import { expectOwn, expectSame, type FuzzTarget } from '../target.ts';
import { sampleOf } from '../values.ts';

/** Every kind of JSON document in the vault. */
export const documentSchemas = {
  applierStatus: applierStatusSchema,
  assignments: assignmentsDocumentSchema,
  catalog: catalogDocumentSchema,
  controller: controllerDocumentSchema,
  enrolmentAnswer: enrolmentAnswerSchema,
  enrolmentRequest: enrolmentRequestSchema,
  failover: failoverDocumentSchema,
  nameClaim: nameClaimSchema,
  point: pointDocumentSchema,
  processServerStatus: processServerStatusSchema,
  recoveryCheck: recoveryCheckSchema,
  registration: registrationSchema,
  replicaState: replicaStateSchema,
  signed: signedSchema,
  trimMark: trimMarkSchema,
  vault: vaultDocumentSchema,
} as const;

export const documentTargets: readonly FuzzTarget[] = Object.entries(documentSchemas).map(
  ([kind, schema]) => ({
    name: `document-${kind}`,
    samples: () => [1, 2, 3].map((seed) => encodeDocument(schema, sampleOf(schema, seed) as never)),
    run: (bytes: Uint8Array) => {
      try {
        const document = decodeDocument(schema, 'some/key', bytes);
        const again = decodeDocument(schema, 'some/key', encodeDocument(schema, document as never));
        expectSame('a document changes when it is written', again, document);
      } catch (error) {
        expectOwn(error, VaultDocumentError, /^VaultDocumentInvalid$/);
      }
    },
  }),
);

export const bootstrap: FuzzTarget = {
  name: 'bootstrap',
  samples: () => {
    const common = {
      ...{ name: 'site-a', vaultId: 'ab'.repeat(16), token: 'one-time-token-of-24-chars' },
      ...{ controllerPublicKey: 'A'.repeat(43), endpoints: ['10.0.0.1:9443'] },
    };
    const direct = { container: 'c', connectionString: 'UseDevelopmentStorage=true' };
    const sas = { container: 'c', prefix: 'p', blobEndpoint: 'https://a.example/', sasToken: 's' };
    return [direct, sas].map((vault) => Buffer.from(JSON.stringify({ ...common, vault })));
  },
  run: (bytes) => {
    const text = Buffer.from(bytes).toString('utf8');
    try {
      const decoded = decodeBootstrap(text);
      expectSame('a bootstrap changes', decodeBootstrap(JSON.stringify(decoded)), decoded);
    } catch (error) {
      expectOwn(error, FarshoreError, /^BootstrapInvalid$/);
    }
  },
};

const kinds = [
  'recovery-public',
  'recovery-private',
  'vault-key',
  'controller-key',
  'encryption-key',
] as const;

export const keyString: FuzzTarget = {
  name: 'key-string',
  samples: () =>
    kinds.map((kind) =>
      Buffer.from(
        encodeKeyString(kind, new SeededRandom(1).bytes(kind === 'recovery-public' ? 64 : 32)),
      ),
    ),
  run: (bytes) => {
    const text = Buffer.from(bytes).toString('utf8');
    for (const kind of kinds)
      try {
        const key = decodeKeyString(kind, text);
        // Upper case and blanks around are forgiven, nothing else.
        expectSame('a key has two strings', encodeKeyString(kind, key), text.trim().toLowerCase());
      } catch (error) {
        expectOwn(error, KeyStringError, /^KeyStringInvalid$/);
      }
  },
};

const boxKey = boxKeyFromSeed(new SeededRandom(4).bytes(32));
const box = sealKey({
  secret: new Uint8Array(32).fill(9),
  recipient: { kind: 'vault', publicKey: boxKey.publicKey },
  context: 'c',
  random: new SeededRandom(5),
});

/** A sealed key's box. */
export const sealedKey: FuzzTarget = {
  name: 'sealed-key',
  samples: () => [Buffer.from(box.box, 'base64url')],
  run: (bytes) => {
    const sealed = [{ ...box, box: Buffer.from(bytes).toString('base64url') }];
    try {
      const opened = openSealedKey({ sealed, key: boxKey, context: 'c' });
      expectSame('a box gives another secret', opened, new Uint8Array(32).fill(9));
    } catch (error) {
      expectOwn(error, KeyError, /^SealedKeyInvalid$/);
    }
  },
};
