/**
 * Who was taken in, vouched for by the controller that did it. Data keys are sealed to the encryption key in a registration, and
 * everybody with the vault's credential can write one: only a signed one counts.
 */

import type { Registration } from './documents/registration.ts';
import type { VaultDocument } from './documents/vault.ts';
import { type SigningKey, signText, verifyText } from './signing.ts';
import { isEndorsedController } from './vault.ts';

type Unsigned = Omit<Registration, 'signer' | 'signature'>;

export function signRegistration(
  registration: Unsigned,
  options: { key: SigningKey; vaultId: string },
): Registration {
  const text = registrationText(registration, options.vaultId);
  return {
    ...registration,
    signer: options.key.publicKey,
    signature: signText(options.key, text),
  };
}

/** Whether a controller of this vault made it. */
export function isVouchedFor(registration: Registration, vault: VaultDocument): boolean {
  const { signer, signature } = registration;
  const text = registrationText(registration, vault.vaultId);
  return isEndorsedController(vault, signer) && verifyText({ publicKey: signer, signature, text });
}

function registrationText(registration: Unsigned, vaultId: string): string {
  const { kind, name, encryptionKey, enrolment, tokenSha256, registeredAt } = registration;
  return `farshore-registration-v1|${vaultId}|${kind}|${name}|${encryptionKey}|${enrolment}|${tokenSha256}|${registeredAt}`;
}
