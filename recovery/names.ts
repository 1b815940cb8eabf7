/** How the resources of a failover are called in Azure; fixed by the ledger's entry, so that every attempt means the same ones. */
import type { FailoverDocument } from '../vault/documents/failover.ts';

const NAME_LONGEST = 64;

/** A test runs beside the real machine, so its name must differ from it, and from other tests'. */
export function vmName(document: FailoverDocument): string {
  const { name } = document.request.target;
  return document.request.type === 'Test' ? suffixed(name, `-test-${mark(document)}`) : name;
}

/** The disk's index tells two apart whose long names are cut off alike. */
export function diskName(
  document: FailoverDocument,
  disk: { index: number; name: string },
): string {
  const { name } = document.request.target;
  return suffixed(`${name}-${disk.name}`, `-${disk.index}-${mark(document)}`);
}

export function nicName(document: FailoverDocument, index: number): string {
  return suffixed(document.request.target.name, `-nic${index}-${mark(document)}`);
}

function mark(document: FailoverDocument): string {
  return document.failoverId.slice(0, 8);
}

function suffixed(name: string, suffix: string): string {
  return name.slice(0, NAME_LONGEST - suffix.length) + suffix;
}
