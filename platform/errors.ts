/**
 * The base of every error that Farshore throws on purpose.
 *
 * `code` is stable: tests, conditions and metrics match on it, never on the message. The message says what happened, to which
 * object, why, and what to do next; it is written for the person who reads it in `kubectl describe` at 3 a.m.
 */
export class FarshoreError extends Error {
  readonly code: string;

  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
    this.code = code;
  }
}

/** The code of an error: ours, or that of Node and the Azure SDK, which use the same property; else `Unknown`. */
export function errorCode(error: unknown): string {
  if (
    typeof error === 'object' &&
    error !== null &&
    'code' in error &&
    typeof error.code === 'string'
  )
    return error.code;
  return 'Unknown';
}

/** The message of anything that was thrown. */
export function errorMessage(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
