/** The signed list of machines of one process server, as it lies in the vault. */

import { trustedControllers } from '../../vault/controllerTrust.ts';
import {
  type AssignmentsDocument,
  assignmentsDocumentSchema,
} from '../../vault/documents/assignments.ts';
import { encodeDocument, VaultDocumentError } from '../../vault/documents/codec.ts';
import { signedSchema } from '../../vault/documents/signed.ts';
import { vaultLayout } from '../../vault/layout.ts';
import { openSigned, SignedDocumentError, signPayload } from '../../vault/signing.ts';
import type { ControlledVault, OpenVault } from '../openvaults/openVaults.ts';

/**
 * What stands there now; undefined when nothing does. `document` is undefined when it is not signed by one of the vault's
 * controllers: it commands nobody, but its place is taken.
 */
export async function readAssignments(
  vault: OpenVault,
  processServer: string,
): Promise<{ document: AssignmentsDocument | undefined; etag: string } | undefined> {
  const key = vaultLayout.assignments(processServer);
  const stored = await vault.stores.objects.get(key);
  if (stored === undefined) return undefined;
  const first = vault.document.controllerKeys[0]?.publicKey ?? '';
  try {
    const { document } = openSigned({
      key,
      bytes: stored.body,
      schema: assignmentsDocumentSchema,
      trusted: trustedControllers({ vault: vault.document, pinned: first }),
    });
    return { document, etag: stored.etag };
  } catch (error) {
    if (!(error instanceof SignedDocumentError) && !(error instanceof VaultDocumentError))
      throw error;
    return { document: undefined, etag: stored.etag };
  }
}

/** Compare-and-set against what was read; false when somebody else wrote meanwhile. */
export async function writeAssignments(
  vault: ControlledVault,
  document: AssignmentsDocument,
  before: { etag: string } | undefined,
): Promise<boolean> {
  const key = vaultLayout.assignments(document.processServer);
  const payload = new TextDecoder().decode(encodeDocument(assignmentsDocumentSchema, document));
  const bytes = encodeDocument(signedSchema, signPayload(vault.installation.signingKey, payload));
  if (before === undefined)
    return (await vault.stores.objects.putIfAbsent(key, bytes)).outcome === 'created';
  const replaced = await vault.stores.objects.replace(key, bytes, { etag: before.etag });
  return replaced.outcome === 'replaced';
}
