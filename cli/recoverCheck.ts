import { errorMessage, FarshoreError } from '../platform/errors.ts';
import type { Clock, ObjectStore } from '../platform/ports.ts';
import { Catalog } from '../vault/catalog.ts';
import type { VaultDocument } from '../vault/documents/vault.ts';
import { boxContext, openDataKey, openSealedKey } from '../vault/keys.ts';
import {
  answerRecoveryChallenge,
  readRecoveryCheck,
  verifyRecoveryCheck,
  writeRecoveryCheck,
} from '../vault/recoveryCheck.ts';
import type { RecoveryKey } from '../vault/recoveryKey.ts';
import { requireVault } from '../vault/vault.ts';
import type { Terminal } from './terminal.ts';

/** Machines named in an error; more are counted. */
const NAMED_MAX = 5;

/** The key is a recipient, and yet does not open everything. Code RecoveryIncomplete. */
export class RecoveryIncompleteError extends FarshoreError {
  constructor(unopened: readonly string[], machines: number) {
    const named = unopened.slice(0, NAMED_MAX).join('; ');
    const more = unopened.length > NAMED_MAX ? `; and ${unopened.length - NAMED_MAX} more` : '';
    super(
      'RecoveryIncomplete',
      `The key does not open ${unopened.length} of ${machines} machines: ${named}${more}. Nothing was confirmed in the vault. If the key was added a moment ago, wait until the operator has sealed the data keys for it.`,
    );
  }
}

/**
 * Shows that a recovery key opens a vault: its authority's key and every machine's data key. Only then it answers the challenge, on
 * which the RecoveryVault's RecoveryKeyVerified condition stands.
 */
export async function recoverCheck(
  deps: { clock: Clock; store: ObjectStore; terminal: Terminal },
  options: { key: RecoveryKey; location: string },
): Promise<void> {
  const { store, terminal } = deps;
  const { key } = options;
  const vault = (await requireVault(store)).document;
  const check = answerRecoveryChallenge({ vault, key, clock: deps.clock });
  openSealedKey({
    sealed: vault.ca.key,
    key: key.box,
    context: boxContext.authorityKey(vault.vaultId),
  });
  const machines = await openEveryMachine(store, vault, key);
  await writeRecoveryCheck(store, check);
  const verdict = verifyRecoveryCheck(vault, await readRecoveryCheck(store));
  if (!verdict.verified)
    throw new FarshoreError(
      'RecoveryCheckOverwritten',
      `The answer was written, and another stands in the vault now: ${verdict.message}`,
    );
  terminal.answer(
    `Recovery key ${key.box.id} opens vault ${vault.vaultId} in ${options.location}: its certificate authority and the data keys of ${machines} machines. The vault holds the proof.`,
  );
}

async function openEveryMachine(
  store: ObjectStore,
  vault: VaultDocument,
  key: RecoveryKey,
): Promise<number> {
  const unopened: string[] = [];
  const catalog = new Catalog({ store });
  let machines = 0;
  for await (const { document } of catalog.list()) {
    machines += 1;
    try {
      openDataKey({
        sealed: document.dataKey,
        key: key.box,
        vaultId: vault.vaultId,
        machineId: document.machineId,
      });
    } catch (error) {
      unopened.push(`${document.namespace}/${document.name} (${errorMessage(error)})`);
    }
  }
  if (unopened.length > 0) throw new RecoveryIncompleteError(unopened, machines);
  return machines;
}
