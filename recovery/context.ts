/** What a step of a failover works with. */
import type {
  Clock,
  Compute,
  DiskImageReader,
  Logger,
  ObjectStore,
  PageBlobStore,
  Random,
} from '../platform/ports.ts';
import type { CatalogDocument } from '../vault/documents/catalog.ts';
import type { FailoverDocument, FailoverStep } from '../vault/documents/failover.ts';
import type { LedgerEntry } from '../vault/ledger.ts';

export interface RecoveryDeps {
  clock: Clock;
  random: Random;
  logger: Logger;
  objects: ObjectStore;
  pages: PageBlobStore;
  compute: Compute;
  images: DiskImageReader;
  /** The machine's data key, opened with a key that this recovery holds: the vault's or a recovery key. */
  openDataKey(catalog: CatalogDocument): Promise<Uint8Array>;
  /** Rejects (NotInControl) unless this installation still controls the vault. Asked before each call that changes something. */
  assertInControl(): Promise<void>;
  /** How often a step that waits for something looks again. */
  pollMs: number;
}

export interface StepContext {
  readonly deps: RecoveryDeps;
  readonly entry: LedgerEntry;
  readonly signal: AbortSignal;
  /** Shows how far the step is; written at most every few seconds. */
  report(progress: NonNullable<FailoverStep['progress']>): Promise<void>;
}

/** Does the step, or as much as is left of it after an earlier attempt; returns one sentence on what it did. */
export type StepRun = (context: StepContext) => Promise<string>;

/** The tags by which a failover knows what is its own. */
export function ownTags(document: FailoverDocument): Record<string, string> {
  return {
    ...document.request.target.tags,
    'farshore-failover': document.failoverId,
    'farshore-failover-name': document.name,
    'farshore-machine': document.request.machineId,
  };
}

export function isOwn(
  document: FailoverDocument,
  resource: { tags: Record<string, string> },
): boolean {
  return resource.tags['farshore-failover'] === document.failoverId;
}
