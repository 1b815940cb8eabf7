/**
 * How controllers get at a vault without knowing an adapter: `main.ts` gives them a factory.
 */
import type { Compute, DiskImageReader, ObjectStore, PageBlobStore } from '../../platform/ports.ts';

/** What a RecoveryVault's spec and Secrets say about reaching the storage account and Azure, resolved. */
export interface VaultConnection {
  storage: {
    account: string;
    container: string;
    /** Keys of this vault begin with it; empty, or ends with `/`. */
    prefix: string;
    /** Exactly one of the two is used: a connection string, or the identity below against the blob endpoint. */
    connectionString?: string;
    blobEndpoint?: string;
  };
  identity:
    | { type: 'None' }
    | { type: 'Workload' }
    | { type: 'ServicePrincipal'; tenantId: string; clientId: string; clientSecret: string };
  cloud: {
    name: string;
    /** Of a custom cloud. */
    resourceManagerEndpoint?: string;
    authorityHost?: string;
    certificateAuthorityPem?: string;
  };
  azure?: { subscriptionId: string; resourceGroup: string; location: string };
}

export interface VaultStores {
  objects: ObjectStore;
  pages: PageBlobStore;
  /** Undefined when the vault names no subscription: replication works, failover to Azure does not. */
  compute: Compute | undefined;
  images: DiskImageReader | undefined;
  close(): Promise<void>;
}

/** Makes the adapters; does not call anybody. Rejects with a FarshoreError when the connection can't be one. */
export type StoresFactory = (connection: VaultConnection) => Promise<VaultStores>;
