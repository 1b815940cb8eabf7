/** The login service: tokens for one service principal, by its secret or by a federated token. */
import { createHmac, randomUUID, timingSafeEqual } from 'node:crypto';

const TOKEN_SECONDS = 3_600;

export interface LoginOptions {
  tenantId: string;
  clientId: string;
  clientSecret: string;
  /** The federated token that a workload may exchange; none when undefined. */
  workloadToken: string | undefined;
  /** Signs tokens; kept over restarts, so that tokens are. */
  signingKey: string;
}

export interface LoginAnswer {
  status: number;
  body: unknown;
}

export class Login {
  readonly #options: LoginOptions;

  constructor(options: LoginOptions) {
    this.#options = options;
  }

  /** Undefined when the path is none of the login service's. */
  answer(method: string, url: URL, body: string): LoginAnswer | undefined {
    const match =
      /^\/([^/]+)\/(v2\.0\/\.well-known\/openid-configuration|oauth2\/v2\.0\/token)$/.exec(
        url.pathname,
      );
    if (match === null) return undefined;
    const [, tenant = '', endpoint = ''] = match;
    if (tenant !== this.#options.tenantId)
      return failure(400, 'invalid_tenant', 90002, `Tenant '${tenant}' not found.`);
    if (endpoint.startsWith('v2.0'))
      return { status: 200, body: configuration(url.origin, tenant) };
    if (method !== 'POST') return failure(400, 'invalid_request', 900561, 'Only POST is accepted.');
    return this.#token(new URLSearchParams(body));
  }

  /** What a bearer token is good for; undefined when it is not ours, or expired. */
  audienceOf(token: string): string | undefined {
    const [payload = '', signature = ''] = token.split('.');
    const expected = Buffer.from(this.#sign(payload));
    const given = Buffer.from(signature);
    if (expected.length !== given.length || !timingSafeEqual(expected, given)) return undefined;
    const claims = JSON.parse(Buffer.from(payload, 'base64url').toString()) as {
      aud: string;
      exp: number;
    };
    return claims.exp * 1000 > Date.now() ? claims.aud : undefined;
  }

  #token(form: URLSearchParams): LoginAnswer {
    const { clientId } = this.#options;
    if (form.get('grant_type') !== 'client_credentials')
      return failure(400, 'unsupported_grant_type', 70003, 'The grant type is not supported.');
    if (form.get('client_id') !== clientId)
      return failure(
        400,
        'unauthorized_client',
        700016,
        `Application with identifier '${form.get('client_id')}' was not found in the directory.`,
      );
    const refusal = form.has('client_assertion')
      ? this.#refuseAssertion(form)
      : this.#refuseSecret(form);
    if (refusal !== undefined) return refusal;
    const audience = (form.get('scope') ?? '').replace(/\/\.default$/, '');
    const claims = {
      aud: audience,
      appid: clientId,
      exp: Math.floor(Date.now() / 1000) + TOKEN_SECONDS,
      jti: randomUUID(),
    };
    const payload = Buffer.from(JSON.stringify(claims)).toString('base64url');
    return {
      status: 200,
      body: {
        token_type: 'Bearer',
        expires_in: TOKEN_SECONDS,
        ext_expires_in: TOKEN_SECONDS,
        access_token: `${payload}.${this.#sign(payload)}`,
      },
    };
  }

  #refuseSecret(form: URLSearchParams): LoginAnswer | undefined {
    if (form.get('client_secret') === this.#options.clientSecret) return undefined;
    return failure(
      401,
      'invalid_client',
      7000215,
      'Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID.',
    );
  }

  #refuseAssertion(form: URLSearchParams): LoginAnswer | undefined {
    const known =
      form.get('client_assertion_type') ===
        'urn:ietf:params:oauth:client-assertion-type:jwt-bearer' &&
      this.#options.workloadToken !== undefined &&
      form.get('client_assertion') === this.#options.workloadToken;
    if (known) return undefined;
    return failure(
      401,
      'invalid_client',
      700213,
      'No matching federated identity record found for presented assertion subject.',
    );
  }

  #sign(payload: string): string {
    return createHmac('sha256', this.#options.signingKey).update(payload).digest('base64url');
  }
}

function configuration(origin: string, tenant: string): unknown {
  return {
    issuer: `${origin}/${tenant}/v2.0`,
    token_endpoint: `${origin}/${tenant}/oauth2/v2.0/token`,
    authorization_endpoint: `${origin}/${tenant}/oauth2/v2.0/authorize`,
    device_authorization_endpoint: `${origin}/${tenant}/oauth2/v2.0/devicecode`,
    end_session_endpoint: `${origin}/${tenant}/oauth2/v2.0/logout`,
    jwks_uri: `${origin}/${tenant}/discovery/v2.0/keys`,
    response_types_supported: ['code', 'id_token', 'token'],
    subject_types_supported: ['pairwise'],
    id_token_signing_alg_values_supported: ['RS256'],
    token_endpoint_auth_methods_supported: ['client_secret_post', 'private_key_jwt'],
  };
}

function failure(status: number, error: string, code: number, message: string): LoginAnswer {
  return {
    status,
    body: {
      error,
      error_description: `AADSTS${code}: ${message} Trace ID: ${randomUUID()} Timestamp: ${new Date().toISOString()}`,
      error_codes: [code],
      timestamp: new Date().toISOString(),
      trace_id: randomUUID(),
      correlation_id: randomUUID(),
    },
  };
}
