/**
 * How controllers get at a vault without knowing an adapter: `main.ts` gives them a factory.
 */
import type { RecoveryVaultSpecCloud } from '../../crds/index.ts';
import type { Compute, DiskImageReader, ObjectStore, PageBlobStore } from '../../platform/ports.ts';

/** What a RecoveryVault's spec and Secrets say about reaching the storage account and Azure, resolved. Holds secrets. */
export interface VaultConnection {
  cloud: RecoveryVaultSpecCloud;
  storage: {
    account: string;
    container: string;
    /** Folder inside the container, without slashes around it; empty: its root. */
    prefix: string;
    /** Absent: as the service principal. */
    connectionString: string | undefined;
  };
  servicePrincipal: { tenantId: string; clientId: string; clientSecret: string };
  subscriptionId: string;
}

export interface VaultStores {
  objects: ObjectStore;
  pages: PageBlobStore;
  compute: Compute;
  images: DiskImageReader;
  /** Makes the container when it is not there: for a vault that is new. */
  ensureContainer(): Promise<void>;
  close(): Promise<void>;
}

/**
 * Makes the adapters; calls nobody. Rejects with a FarshoreError when the connection can't be one. `mayChange`: whether this operator
 * still leads, by a clock that goes on while it is suspended.
 */
export type StoresFactory = (
  connection: VaultConnection,
  leadership: { mayChange: () => boolean },
) => Promise<VaultStores>;
