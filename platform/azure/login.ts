/**
 * Logging in to Azure. The library behind @azure/identity keeps to itself why it could not: an unknown tenant, a certificate that
 * is not trusted and a dead network all read "endpoints_resolution_error". This credential listens in and says which it was.
 */
import {
  type AccessToken,
  ClientSecretCredential,
  type GetTokenOptions,
  type TokenCredential,
  WorkloadIdentityCredential,
} from '@azure/identity';
import { errorMessage } from '../errors.ts';
import { type AzureCloud, trustOf } from './cloud.ts';

export type AzureIdentity =
  | { kind: 'ServicePrincipal'; tenantId: string; clientId: string; clientSecret: string }
  /** The pod's projected service account token, exchanged for one of Entra's. */
  | { kind: 'WorkloadIdentity'; tenantId: string; clientId: string; tokenFile: string };

/** Why there is no token. */
export class AzureLoginError extends Error {
  /** The login service answered, and said no; otherwise it did not answer. */
  readonly refused: boolean;

  constructor(message: string, options: { refused: boolean }) {
    super(message);
    this.name = 'AzureLoginError';
    this.refused = options.refused;
  }
}

/** What to log in with. The credential keeps and renews its tokens; it fails with AzureLoginError. */
export function azureCredential(cloud: AzureCloud, identity: AzureIdentity): TokenCredential {
  return new ExplainingCredential((listener) => {
    const options = {
      authorityHost: cloud.authorityHost,
      disableInstanceDiscovery: cloud.disableInstanceDiscovery,
      retryOptions: { maxRetries: 2 },
      additionalPolicies: [{ policy: listener, position: 'perRetry' as const }],
      ...trustOf(cloud),
    };
    if (identity.kind === 'ServicePrincipal')
      return new ClientSecretCredential(
        identity.tenantId,
        identity.clientId,
        identity.clientSecret,
        options,
      );
    return new WorkloadIdentityCredential({
      ...options,
      tenantId: identity.tenantId,
      clientId: identity.clientId,
      tokenFilePath: identity.tokenFile,
    });
  });
}

/** The one method of a pipeline's policy that is needed here. */
interface Listener {
  name: string;
  sendRequest<Request, Response extends { status: number; bodyAsText?: string | null }>(
    request: Request,
    next: (request: Request) => Promise<Response>,
  ): Promise<Response>;
}

class ExplainingCredential implements TokenCredential {
  readonly #credential: TokenCredential;
  #heard: { refused: boolean; message: string } | undefined;

  constructor(make: (listener: Listener) => TokenCredential) {
    this.#credential = make({
      name: 'farshoreLoginListener',
      sendRequest: async (request, next) => {
        try {
          const response = await next(request);
          this.#heard =
            response.status >= 400
              ? {
                  refused: response.status < 500 && response.status !== 429,
                  message: refusalIn(response),
                }
              : undefined;
          return response;
        } catch (error) {
          this.#heard = { refused: false, message: errorMessage(error) };
          throw error;
        }
      },
    });
  }

  async getToken(scopes: string | string[], options?: GetTokenOptions): Promise<AccessToken> {
    this.#heard = undefined;
    try {
      const token = await this.#credential.getToken(scopes, options);
      if (token !== null) return token;
      throw new AzureLoginError('The login service gave no token', { refused: true });
    } catch (error) {
      if (error instanceof AzureLoginError) throw error;
      if (options?.abortSignal?.aborted === true) throw error;
      // What never went out, such as a token file that is missing, is for us to correct too.
      const heard = this.#heard ?? { refused: true, message: errorMessage(error) };
      throw new AzureLoginError(`Logging in failed: ${heard.message}`, heard);
    }
  }
}

function refusalIn(response: { status: number; bodyAsText?: string | null }): string {
  try {
    const body: unknown = JSON.parse(response.bodyAsText ?? '');
    if (typeof body === 'object' && body !== null && 'error_description' in body)
      return String(body.error_description);
  } catch {
    // Not JSON: a proxy, or an error page.
  }
  return `the login service answered ${response.status}`;
}
