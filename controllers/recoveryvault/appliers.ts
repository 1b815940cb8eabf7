/** Appliers of a vault: their bootstrap file, and taking them in. One that is taken in gets every machine's data key. */
import { API_GROUP_VERSION, type RecoveryVault } from '../../crds/index.ts';
import { type Environment, namespaceOf } from '../environment.ts';
import { ensureBootstrap } from '../openvaults/bootstrapSecret.ts';
import { admitByToken } from '../openvaults/enrolment.ts';
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
    const { refusal, spent } = await admitByToken(environment, vault, {
      kind: 'applier',
      pending,
      token,
      secret: wish.secret.name,
      issueCertificate: async () => '',
    });
    if (spent) await ensureBootstrap(environment, vault, wish, { renewToken: true });
    outcomes.push({ name: pending.request.name, refusal });
  }
  return outcomes;
}
