/** The trim mark of a machine's journal: segments below it were trimmed, and nothing below it counts (docs/FORMAT.md, Trimming). */
import type { ObjectStore } from '../../platform/ports.ts';
import { createDocument, readDocument, updateDocument } from '../../vault/documentStore.ts';
import { VaultDocumentError } from '../../vault/documents/codec.ts';
import { trimMarkSchema } from '../../vault/documents/trimMark.ts';
import { vaultLayout } from '../../vault/layout.ts';

const MARK_MAX_BYTES = 4 << 10;

/** The lowest segment that counts; 0 while nothing was ever trimmed. Throws VaultDocumentError, StoreError. */
export async function readTrimMark(objects: ObjectStore, machineId: string): Promise<number> {
  const key = vaultLayout.trimMark(machineId);
  const maxBytes = MARK_MAX_BYTES;
  const found = await readDocument({ store: objects, key, schema: trimMarkSchema, maxBytes });
  if (found === undefined) return 0;
  if (found.document.machineId !== machineId)
    throw new VaultDocumentError(key, `it is of machine ${found.document.machineId}`);
  return found.document.firstSeq;
}

/** Once it resolves the mark is at `firstSeq` or above it. Never lowers it. */
export async function raiseTrimMark(
  objects: ObjectStore,
  mark: { machineId: string; firstSeq: number },
): Promise<void> {
  const key = vaultLayout.trimMark(mark.machineId);
  const at = { store: objects, key, schema: trimMarkSchema };
  const { outcome } = await createDocument({ ...at, document: mark });
  if (outcome === 'created') return;
  const updated = await updateDocument({
    ...at,
    change: (current) => (current.firstSeq >= mark.firstSeq ? undefined : mark),
  });
  if (updated === undefined)
    throw new VaultDocumentError(key, 'it was removed while it was being raised');
}
