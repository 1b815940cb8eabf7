/** A refusal as Azure Resource Manager words it. */
export class ArmFailure extends Error {
  readonly status: number;
  readonly code: string;
  readonly headers: Record<string, string>;
  /** Compute's throttling answers lack the usual `error` around them. */
  readonly body: unknown;

  constructor(
    status: number,
    code: string,
    message: string,
    options: { headers?: Record<string, string>; body?: unknown } = {},
  ) {
    super(message);
    this.status = status;
    this.code = code;
    this.headers = options.headers ?? {};
    this.body = options.body ?? { error: { code, message } };
  }
}

export function notFound(id: string): ArmFailure {
  return new ArmFailure(404, 'ResourceNotFound', `The Resource '${id}' was not found.`);
}

export function invalid(target: string, message: string): ArmFailure {
  return new ArmFailure(400, 'InvalidParameter', message, {
    body: { error: { code: 'InvalidParameter', target, message } },
  });
}

export function conflict(message: string): ArmFailure {
  return new ArmFailure(409, 'OperationNotAllowed', message);
}
