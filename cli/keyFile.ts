/** A recovery key's file: comment lines, and one line with the private string. */
import { FarshoreError } from '../platform/errors.ts';
import { withoutComments } from '../vault/keyStrings.ts';
import { decodeRecoveryKey, type RecoveryKey } from '../vault/recoveryKey.ts';

/** Code KeyFileInvalid. Never repeats what the file holds. */
export class KeyFileError extends FarshoreError {
  constructor(path: string, problem: string) {
    super(
      'KeyFileInvalid',
      `${path} is not a recovery key's file: ${problem}. Give the file that \`farshore keygen\` wrote.`,
    );
  }
}

export function encodeKeyFile(key: RecoveryKey, madeAt: number): string {
  return [
    `# Farshore recovery key ${key.box.id}, made ${new Date(madeAt).toISOString()}.`,
    '# Whoever has it can read every machine in the vaults that name it. Keep it secret, and away from the protected site.',
    `# public: ${key.publicString}`,
    key.privateString,
    '',
  ].join('\n');
}

/** Throws KeyFileError, or KeyStringError when a character is wrong. */
export function decodeKeyFile(path: string, text: string): RecoveryKey {
  const lines = withoutComments(text);
  const [line] = lines;
  if (line === undefined || lines.length !== 1)
    throw new KeyFileError(path, `it has ${lines.length} lines that are no comments, not one`);
  return decodeRecoveryKey(line);
}
