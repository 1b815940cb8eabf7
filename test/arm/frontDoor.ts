/** Takes every request to the emulator, applies what shall go wrong, logs it. */
import { randomBytes } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { type Answer, type ArmCall, parseCall } from './call.ts';
import type { CallLog, LoggedCall } from './callLog.ts';
import { requireGroup } from './catalogue.ts';
import type { EmulatorContext } from './context.ts';
import { answerControl } from './control.ts';
import { serveDisk } from './diskAccess.ts';
import type { EmulatorControl } from './emulator.ts';
import { ArmFailure } from './failure.ts';
import { type Fault, type Faults, refusalOf } from './faults.ts';
import type { Login } from './login.ts';
import type { MachineRoom } from './machineRoom.ts';
import { route } from './routes.ts';
import { serveSerialLog } from './serialLog.ts';

const LARGEST_BODY = 1 << 20;

interface Rooms {
  context: EmulatorContext;
  faults: Faults;
  log: CallLog;
  room: MachineRoom;
  login: Login;
  control: EmulatorControl;
  onCall: ((call: LoggedCall) => Promise<void>) | undefined;
}

/** Sorts requests by path: the login service, content by URL, the control API, and Azure Resource Manager itself. */
export class FrontDoor {
  readonly #parts: Rooms;

  constructor(parts: Rooms) {
    this.#parts = parts;
  }

  async serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { context, login, control } = this.#parts;
    const url = new URL(request.url ?? '/', context.url);
    if (url.pathname.startsWith('/_disk/')) return serveDisk(context, request, response, url);
    if (url.pathname.startsWith('/_serial/')) return serveSerialLog(context, response, url);
    const body = await bodyOf(request);
    if (url.pathname.startsWith('/_control/'))
      return sendJson(response, await answerControl(control, request.method ?? '', url, body));
    const loginAnswer = login.answer(request.method ?? '', url, body);
    if (loginAnswer === undefined) return this.#serveArm(request, response, { url, body });
    this.#serveLogin(request, response, { path: url.pathname, answer: loginAnswer });
  }

  #serveLogin(
    request: IncomingMessage,
    response: ServerResponse,
    login: { path: string; answer: Answer },
  ): void {
    const { faults, log } = this.#parts;
    const operation = `${request.method} login`;
    const fault = faults.take({ operation, name: '' });
    const dropped = fault?.kind === 'dropBefore' || fault?.kind === 'dropAfter';
    const refusal = fault === undefined ? undefined : refusalOf(fault);
    const answer = refusal ?? login.answer;
    log.add({
      ...{ method: request.method ?? '', path: login.path, operation, name: '' },
      ...{ status: dropped ? 0 : answer.status, created: false, deleted: false },
    });
    if (dropped) request.socket.destroy();
    else sendJson(response, answer);
  }

  async #serveArm(
    request: IncomingMessage,
    response: ServerResponse,
    sent: { url: URL; body: string },
  ): Promise<void> {
    const { faults, log } = this.#parts;
    const call = parseCall(request.method ?? '', sent.url, parsedBody(sent.body));
    const operation = call?.operation ?? `${request.method} unknown`;
    const name = call?.name ?? '';
    const logged = { method: request.method ?? '', path: sent.url.pathname, operation, name };
    const fault = faults.take({ operation, name });
    if (fault?.kind === 'dropBefore') {
      log.add({ ...logged, status: 0, created: false, deleted: false });
      request.socket.destroy();
      return;
    }
    if (call !== undefined) call.fault = fault;
    const answer = await this.#answer(request, call, fault);
    if (fault?.kind === 'delay') await new Promise((resolve) => setTimeout(resolve, fault.ms));
    const dropped = fault?.kind === 'dropAfter';
    const entry = log.add({
      ...logged,
      status: dropped ? 0 : answer.status,
      created: answer.created === true,
      deleted: answer.deleted === true,
      ...(answer.status >= 400 ? { code: codeOf(answer.body) } : {}),
    });
    await this.#parts.onCall?.(entry);
    if (dropped) request.socket.destroy();
    else sendJson(response, answer);
  }

  async #answer(
    request: IncomingMessage,
    call: ArmCall | undefined,
    fault: Fault | undefined,
  ): Promise<Answer> {
    const { context, room } = this.#parts;
    try {
      this.#authenticate(request);
      const refusal = fault === undefined ? undefined : refusalOf(fault);
      if (refusal !== undefined) throw refusal;
      if (call === undefined) throw new ArmFailure(404, 'InvalidResource', 'No such path.');
      if (!call.query.has('api-version'))
        throw new ArmFailure(400, 'MissingApiVersionParameter', 'api-version is required.');
      if (call.subscription !== context.subscriptionId)
        throw new ArmFailure(
          404,
          'SubscriptionNotFound',
          `The subscription '${call.subscription}' could not be found.`,
        );
      if (call.group !== undefined && call.type !== undefined) requireGroup(context, call.group);
      return await route(call, context, room);
    } catch (error) {
      if (!(error instanceof ArmFailure)) throw error;
      return { status: error.status, headers: error.headers, body: error.body };
    }
  }

  #authenticate(request: IncomingMessage): void {
    const token = /^Bearer (.+)$/.exec(request.headers.authorization ?? '')?.[1];
    const audience = token === undefined ? undefined : this.#parts.login.audienceOf(token);
    if (audience === undefined)
      throw new ArmFailure(401, 'InvalidAuthenticationToken', 'The access token is invalid.');
    if (audience.replace(/\/+$/, '') !== this.#parts.context.url)
      throw new ArmFailure(
        401,
        'InvalidAuthenticationTokenAudience',
        `The access token has been obtained for wrong audience or resource '${audience}'. It should exactly match with one of the allowed audiences '${this.#parts.context.url}'.`,
      );
  }
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > LARGEST_BODY) throw new Error(`a request of more than ${LARGEST_BODY} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

function parsedBody(body: string): Record<string, unknown> {
  if (body === '') return {};
  try {
    const value: unknown = JSON.parse(body);
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}

function sendJson(response: ServerResponse, answer: Answer): void {
  const body = answer.body === undefined ? '' : JSON.stringify(answer.body);
  response.writeHead(answer.status, {
    'x-ms-request-id': randomBytes(16).toString('hex'),
    'x-ms-ratelimit-remaining-subscription-reads': '249',
    ...answer.headers,
    ...(body === '' ? {} : { 'content-type': 'application/json; charset=utf-8' }),
    'content-length': Buffer.byteLength(body),
  });
  response.end(body);
}

function codeOf(body: unknown): string {
  const said = body as { code?: string; error?: { code?: string } } | undefined;
  return said?.error?.code ?? said?.code ?? '';
}
