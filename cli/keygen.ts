import type { Clock, Random } from '../platform/ports.ts';
import { generateRecoveryKey } from '../vault/recoveryKey.ts';
import { encodeKeyFile } from './keyFile.ts';
import type { Terminal } from './terminal.ts';

export interface SecretFiles {
  /** Creates the file, readable by its owner alone, durably. Rejects when it exists. */
  createSecret(path: string, text: string): Promise<void>;
}

/** Makes a recovery key: the private half into a file, the public string on standard output. Needs no network. */
export async function keygen(
  deps: { clock: Clock; random: Random; files: SecretFiles; terminal: Terminal },
  options: { out?: string | undefined },
): Promise<void> {
  const key = generateRecoveryKey(deps.random);
  const path = options.out ?? `farshore-recovery-${key.box.id}.key`;
  await deps.files.createSecret(path, encodeKeyFile(key, deps.clock.now()));
  deps.terminal.tell(
    [
      `Wrote the private recovery key to ${path}. Store it away from the protected site: it opens every vault that names it.`,
      'Its public string, for RecoveryVault.spec.recoveryRecipients:',
    ].join('\n'),
  );
  deps.terminal.answer(key.publicString);
}
