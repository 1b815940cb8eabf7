/** Appliers of a vault: their bootstrap file, and taking them in. One that is taken in gets every machine's data key. */
import { API_GROUP_VERSION, type RecoveryVault } from '../../crds/index.ts';
import type { Environment } from '../environment.ts';
import { namespaceOf } from '../environment.ts';
import { ensureBootstrap } from '../openvaults/bootstrapSecret.ts';
import {
  acceptance,
  answer,
  proveToken,
  register,
  registrationOf,
} from '../openvaults/enrolment.ts';
import type { PendingEnrolment } from '../openvaults/observation.ts';
import type { ControlledVault } from '../openvaults/openVaults.ts';

/** The name that an applier has unless its bootstrap file is edited. */
const APPLIER_NAME = 'applier';

export function applierSecretName(vault: string): string {
  return `${vault}-applier-bootstrap`;
}

export interface ApplierOutcome {
  name: string;
  refusal: { code: string; message: string } | undefined;
}

/** Keeps the Secret, answers who asks. Throws KubeError, StoreError. */
export async function serveAppliers(
  environment: Environment,
  resource: RecoveryVault,
  vault: ControlledVault,
): Promise<ApplierOutcome[]> {
  const wish = {
    secret: {
      namespace: namespaceOf(resource),
      name: applierSecretName(resource.metadata.name),
    },
    owner: {
      apiVersion: API_GROUP_VERSION,
      kind: 'RecoveryVault',
      name: resource.metadata.name,
      uid: resource.metadata.uid ?? '',
      controller: true,
    },
    name: APPLIER_NAME,
  };
  const { token } = await ensureBootstrap(environment, vault, wish);
  const outcomes: ApplierOutcome[] = [];
  for (const pending of vault.observation.pendingEnrolments) {
    if (pending.request.kind !== 'applier') continue;
    const outcome = await admit(environment, vault, { pending, token, secret: wish.secret.name });
    if (outcome.spent) await ensureBootstrap(environment, vault, wish, { renewToken: true });
    outcomes.push({ name: pending.request.name, refusal: outcome.refusal });
  }
  return outcomes;
}

async function admit(
  environment: Environment,
  vault: ControlledVault,
  options: { pending: PendingEnrolment; token: string; secret: string },
): Promise<{ spent: boolean; refusal: ApplierOutcome['refusal'] }> {
  const { id, request } = options.pending;
  const { name } = request;
  const registration = registrationOf(vault, 'applier', name);
  const verdict = proveToken({ id, request, registration, ...options });
  if (verdict.verdict === 'refused') {
    await answer(vault, id, verdict.refusal);
    return { spent: verdict.spent, refusal: verdict.refusal };
  }
  const registered = await register(vault, {
    kind: 'applier',
    name,
    encryptionKey: verdict.encryptionKey,
    enrolment: id,
    token: options.token,
    registeredAt: environment.clock.now(),
  });
  vault.observation.noteRegistration(registered);
  const caCertificatePem = vault.document.ca.certificatePem;
  await answer(vault, id, acceptance({ key: verdict.key, certificatePem: '', caCertificatePem }));
  return { spent: false, refusal: undefined };
}
