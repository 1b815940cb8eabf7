import { errorCode, errorMessage } from '../errors.ts';
import { KubeError, type KubeErrorCode } from '../kubernetes.ts';

/** What the API server says when it refuses: a `Status` object (k8s.io/apimachinery, meta/v1). */
export interface StatusObject {
  kind: 'Status';
  code: number;
  reason: string;
  message: string;
  name: string | undefined;
  retryAfterMs: number | undefined;
}

/** Reads a body as a Status; undefined when it is something else, as from a proxy or for a path that is not served. */
export function statusOf(body: unknown): StatusObject | undefined {
  if (!isRecord(body) || body.kind !== 'Status') return undefined;
  const details = isRecord(body.details) ? body.details : {};
  return {
    kind: 'Status',
    code: typeof body.code === 'number' ? body.code : 0,
    reason: typeof body.reason === 'string' ? body.reason : '',
    message: typeof body.message === 'string' ? body.message : '',
    name: typeof details.name === 'string' ? details.name : undefined,
    retryAfterMs:
      typeof details.retryAfterSeconds === 'number' ? details.retryAfterSeconds * 1000 : undefined,
  };
}

/** The error for an answer that is not a success. `what` names verb, kind and object. */
export function errorOfAnswer(
  what: string,
  answer: { status: number; retryAfter: string | undefined; body: unknown; text: string },
): KubeError {
  const status = statusOf(answer.body);
  const code = codeOf(status?.code || answer.status, status, answer.retryAfter);
  const said = status?.message || answer.text.slice(0, 512).trim() || `HTTP ${answer.status}`;
  const seconds = Number(answer.retryAfter);
  const retryAfterMs =
    status?.retryAfterMs ??
    (answer.retryAfter !== undefined && Number.isFinite(seconds) ? seconds * 1000 : undefined);
  return new KubeError(code, `Kubernetes refused to ${what}: ${said}`, {
    status: answer.status,
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
  });
}

/** The error for a call that got no answer. It may have happened all the same. */
export function errorOfSilence(what: string, url: string, cause: unknown): KubeError {
  return new KubeError(
    'Unreachable',
    `Kubernetes at ${url} gave no answer when asked to ${what}: ${errorMessage(cause)} (${errorCode(cause)}). It is tried again.`,
    { cause },
  );
}

function codeOf(
  status: number,
  said: StatusObject | undefined,
  retryAfter: string | undefined,
): KubeErrorCode {
  if (status === 404) return said?.name === undefined ? 'NotServed' : 'NotFound';
  if (status === 409) return said?.reason === 'AlreadyExists' ? 'AlreadyExists' : 'Conflict';
  if (status === 410) return 'Gone';
  if (status === 400 || status === 413 || status === 415 || status === 422) return 'Invalid';
  if (status === 401) return 'Unauthorized';
  if (status === 403) return 'Forbidden';
  if (status === 429 || (status === 503 && retryAfter !== undefined)) return 'TooManyRequests';
  return status >= 500 ? 'ServerError' : 'BadAnswer';
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
