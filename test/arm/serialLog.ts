/** Serves a machine's serial log under the URL that retrieveBootDiagnosticsData gave. */
import { createReadStream, existsSync } from 'node:fs';
import type { ServerResponse } from 'node:http';
import type { EmulatorContext } from './context.ts';

export async function serveSerialLog(
  context: EmulatorContext,
  response: ServerResponse,
  url: URL,
): Promise<void> {
  const uid = url.pathname.split('/')[2];
  const vm = context.resources.list().find((one) => one.uid === uid);
  if (vm === undefined || url.searchParams.get('sig') !== vm.hidden.serialSecret) {
    response.writeHead(403).end();
    return;
  }
  const file = context.serialFile(vm);
  if (!existsSync(file)) {
    response.writeHead(404).end();
    return;
  }
  response.writeHead(200, { 'content-type': 'text/plain' });
  createReadStream(file).pipe(response);
}
