/** Generated from crds/recoveryvaults.yaml by hack/generate-crd-types.ts; do not edit. */
import type { Condition, ObjectMeta } from '../object.ts';

/**
 * Where the vault is, who may open it, and where machines are recovered to.
 */
export interface RecoveryVaultSpec {
  cloud: RecoveryVaultSpecCloud;
  storageAccount: RecoveryVaultSpecStorageAccount;
  /**
   * The container that holds the vault. Made when it does not exist. Can't change.
   */
  containerName: string;
  /**
   * Folder inside the container, for several vaults in one. Without a slash at its start or end. Can't change.
   */
  prefix: string;
  credentials: RecoveryVaultSpecCredentials;
  /**
   * Public recovery keys, as `farshore keygen` prints them. Whoever holds the private half of any of them can open the vault without this cluster. Keep those halves outside the site that the vault protects. Can't change: everything in the vault is sealed for these.
   *
   * Items: One public recovery key.
   */
  recoveryRecipients: string[];
  vaultKeySecretRef?: RecoveryVaultSpecVaultKeySecretRef;
  /**
   * Azure subscription in which machines are brought up.
   */
  subscriptionId: string;
  /**
   * Resource group in which machines are brought up, unless a machine names another. It must exist.
   */
  resourceGroup: string;
  /**
   * Azure region in which machines are brought up, such as westeurope. The storage account must be in it.
   */
  location: string;
  networks: RecoveryVaultSpecNetworks;
  /**
   * Other namespaces whose ProtectedVMs and ProcessServers may name this vault. Its own namespace always may.
   *
   * Items: Name of a namespace.
   */
  allowedNamespaces?: string[];
  /**
   * Takes control of the vault from the installation that holds this controller epoch (see status.controllerEpoch). It happens once: when the epoch has moved on, the field does nothing, so a manifest applied again does no harm.
   */
  takeControlFromEpoch?: number;
}
/**
 * Which Azure cloud the vault is in.
 */
export interface RecoveryVaultSpecCloud {
  /**
   * One of Azure's clouds, or Custom with endpoints of your own (Azure Stack Hub, a private cloud, a test).
   */
  type: 'AzurePublic' | 'AzureUSGovernment' | 'AzureChina' | 'Custom';
  custom?: RecoveryVaultSpecCloudCustom;
}
/**
 * The endpoints of a cloud of type Custom.
 */
export interface RecoveryVaultSpecCloudCustom {
  /**
   * URL of Azure Resource Manager.
   */
  resourceManagerEndpoint: string;
  /**
   * URL of the authority that issues tokens (Microsoft Entra ID, AD FS), without the tenant.
   */
  loginEndpoint: string;
  /**
   * URL of the storage account's blob service. With a connection string, that string's own endpoint is used.
   */
  blobEndpoint: string;
  /**
   * Do not ask Microsoft's public directory whether the authority is genuine. Needed where that directory can't be reached or does not know the authority.
   */
  disableInstanceDiscovery: boolean;
  /**
   * PEM certificates of the authorities that signed the endpoints' certificates, when the system does not trust them.
   */
  caBundle?: string;
}
/**
 * The storage account that holds the vault.
 */
export interface RecoveryVaultSpecStorageAccount {
  /**
   * Name of the storage account. Can't change.
   */
  name: string;
  /**
   * Azure resource id of the storage account; managed disks are imported from it.
   */
  resourceId: string;
}
/**
 * How Farshore signs in to Azure.
 */
export interface RecoveryVaultSpecCredentials {
  servicePrincipal: RecoveryVaultSpecCredentialsServicePrincipal;
  storage?: RecoveryVaultSpecCredentialsStorage;
}
/**
 * An application in Microsoft Entra ID with a client secret. It needs the right to manage disks, network interfaces and virtual machines in the resource group, and to read and write the container's blobs unless a connection string is given.
 */
export interface RecoveryVaultSpecCredentialsServicePrincipal {
  /**
   * The directory (tenant) of the application.
   */
  tenantId: string;
  /**
   * The application (client) id.
   */
  clientId: string;
  clientSecretRef: RecoveryVaultSpecCredentialsServicePrincipalClientSecretRef;
}
/**
 * The Secret that holds the client secret.
 */
export interface RecoveryVaultSpecCredentialsServicePrincipalClientSecretRef {
  /**
   * Name of a Secret in the RecoveryVault's namespace.
   */
  name: string;
  /**
   * Which entry of the Secret.
   */
  key: string;
}
/**
 * How to reach the blobs, when not as the service principal.
 */
export interface RecoveryVaultSpecCredentialsStorage {
  connectionStringSecretRef: RecoveryVaultSpecCredentialsStorageConnectionStringSecretRef;
}
/**
 * The Secret that holds a connection string of the storage account.
 */
export interface RecoveryVaultSpecCredentialsStorageConnectionStringSecretRef {
  /**
   * Name of a Secret in the RecoveryVault's namespace.
   */
  name: string;
  /**
   * Which entry of the Secret.
   */
  key: string;
}
/**
 * A Secret with a private key that opens a vault which exists already: its vault key, or a recovery key. Needed when this cluster did not make the vault, as after a disaster. A cluster that makes a vault keeps the vault key in a Secret of its own.
 */
export interface RecoveryVaultSpecVaultKeySecretRef {
  /**
   * Name of a Secret in the RecoveryVault's namespace.
   */
  name: string;
  /**
   * Which entry of the Secret.
   */
  key: string;
}
/**
 * The networks to which recovered machines are attached.
 */
export interface RecoveryVaultSpecNetworks {
  production: RecoveryVaultSpecNetworksProduction;
  test: RecoveryVaultSpecNetworksTest;
}
/**
 * Network of machines brought up by a Planned or Unplanned failover, unless a machine names another.
 */
export interface RecoveryVaultSpecNetworksProduction {
  /**
   * Resource group of the network; that of the vault when absent.
   */
  resourceGroup?: string;
  /**
   * Name of the virtual network.
   */
  network: string;
  /**
   * Name of the subnet.
   */
  subnet: string;
}
/**
 * Network of machines brought up by a Test failover, whatever the machine names. Keep it apart from production.
 */
export interface RecoveryVaultSpecNetworksTest {
  /**
   * Resource group of the network; that of the vault when absent.
   */
  resourceGroup?: string;
  /**
   * Name of the virtual network.
   */
  network: string;
  /**
   * Name of the subnet.
   */
  subnet: string;
}

/**
 * What Farshore found. Written by the operator alone.
 */
export interface RecoveryVaultStatus {
  /**
   * The generation of the spec that this status was computed from.
   */
  observedGeneration?: number;
  /**
   * Ready, Reconciling, Stalled; Reachable (the storage account answers), RecoveryKeyVerified (a recovery key was shown to open the vault) and InControl (this installation controls the vault).
   */
  conditions?: Condition[];
  /**
   * The vault's identity, made with it.
   */
  vaultId?: string;
  /**
   * The version of the vault's format.
   */
  formatVersion?: number;
  /**
   * How often control of the vault has been taken. The installation in control holds this epoch.
   */
  controllerEpoch?: number;
  /**
   * Who is in control, in its own words.
   */
  controllerHolder?: string;
  /**
   * Public key with which the installation in control signs what process servers must do.
   */
  controllerPublicKey?: string;
  /**
   * How many ProtectedVMs name this vault.
   */
  machines?: number;
  /**
   * When a recovery key was last shown to open the vault (`farshore recover --check`).
   */
  recoveryKeyVerifiedAt?: string;
}

/** A place in Azure where Farshore keeps copies of machines: a container in a storage account, and the subscription, resource group and networks in which machines are brought up from it. Deleting a RecoveryVault never deletes storage. */
export interface RecoveryVault {
  apiVersion: string;
  kind: string;
  metadata: ObjectMeta;
  spec: RecoveryVaultSpec;
  status?: RecoveryVaultStatus;
}
