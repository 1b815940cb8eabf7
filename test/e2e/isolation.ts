/**
 * A network namespace with a loopback interface and nothing else, in which a few TCP ports of this machine answer as they do outside:
 * each is carried through a Unix socket. What runs inside reaches those services and nothing else, not even this machine's other ports.
 */
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import net from 'node:net';
import path from 'node:path';
import { start } from '../../hack/demonstration/process.ts';
import { eventually, type Workplace } from './workplace.ts';

export interface Isolation {
  /** What to run a program with, so that it runs inside. */
  inside: readonly string[];
  /** Whether a TCP connection to the port of 127.0.0.1 can be made from inside. */
  reaches(port: number): boolean;
}

const CARRIER = path.join(import.meta.dirname, 'carrier.ts');

export async function isolate(workplace: Workplace, ports: readonly number[]): Promise<Isolation> {
  const { folder, logs, undo } = workplace;
  const name = `farshore-${process.pid}`;
  execFileSync('ip', ['netns', 'add', name], { stdio: 'pipe' });
  undo.add(`remove network namespace ${name}`, () => {
    execFileSync('ip', ['netns', 'delete', name], { stdio: 'pipe' });
  });
  execFileSync('ip', ['-n', name, 'link', 'set', 'lo', 'up'], { stdio: 'pipe' });
  const inside = ['ip', 'netns', 'exec', name];
  const reaches = (port: number) => {
    const probe = `require('net').connect(${port},'127.0.0.1').on('connect',()=>process.exit(0)).on('error',()=>process.exit(1))`;
    try {
      const [program = '', ...before] = inside;
      execFileSync(program, [...before, process.execPath, '-e', probe], { stdio: 'pipe' });
      return true;
    } catch {
      return false;
    }
  };
  for (const port of ports) {
    const socket = path.join(folder, `port-${port}.socket`);
    const server = net.createServer((client) => {
      const service = net.connect(port, '127.0.0.1');
      client.pipe(service).pipe(client);
      for (const [one, other] of [[client, service] as const, [service, client] as const])
        one.on('error', () => other.destroy()).on('close', () => other.destroy());
    });
    server.listen(socket);
    await once(server, 'listening');
    undo.add(`close ${socket}`, () => void server.close());
    const command = [...inside, process.execPath, CARRIER, String(port), socket];
    const carrier = start({ name: `carrier-${port}`, command, logs });
    undo.add(`stop the carrier of port ${port}`, () => carrier.kill());
    await eventually({ what: `port ${port} inside`, timeoutMs: 20_000 }, () =>
      reaches(port) ? true : undefined,
    );
  }
  return { inside, reaches };
}
