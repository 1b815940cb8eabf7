/** Farshore's own processes, started the way its users start them. */
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { Cloud } from './cloud.ts';
import { MACHINE, NAMESPACE } from './manifests.ts';
import { type Running, start } from './process.ts';
import type { Undo } from './undo.ts';

const root = path.resolve(import.meta.dirname, '../..');

export interface Placement {
  folder: string;
  logs: string;
  undo: Undo;
}

export function startOperator(
  cloud: Pick<Cloud, 'kubernetes'>,
  place: Placement & { metricsPort: number },
  options: Launch & { flags?: readonly string[] } = {},
): Running {
  const command = [
    'operator/main.ts',
    ...['--kubeconfig', cloud.kubernetes.kubeconfigPath],
    ...['--namespace', NAMESPACE],
    ...['--operator-namespace', NAMESPACE],
    ...['--metrics-port', String(place.metricsPort)],
    ...(options.flags ?? []),
  ];
  return launch(place, 'operator', command, options);
}

export function startProcessServer(
  bootstrap: string,
  place: Placement,
): Running & { cache: string } {
  const cache = path.join(place.folder, 'processserver');
  mkdirSync(cache, { recursive: true });
  const running = launch(place, 'processserver', [
    'dataplane/processserver/main.ts',
    ...['--bootstrap', secretFile(place, 'processserver.bootstrap', bootstrap)],
    ...['--cache', cache],
    ...['--metrics-port', '0'],
  ]);
  return { ...running, cache };
}

export function startApplier(bootstrap: string, place: Placement): Running {
  const state = path.join(place.folder, 'applier');
  mkdirSync(state, { recursive: true });
  return launch(place, 'applier', [
    'dataplane/applier/main.ts',
    ...['--bootstrap', secretFile(place, 'applier.bootstrap', bootstrap)],
    ...['--state', state],
    ...['--metrics-port', '0'],
  ]);
}

export function startAgent(
  options: { passphrase: string; port: number; flags?: readonly string[] },
  place: Placement,
): Running & { state: string; run: string } {
  const state = path.join(place.folder, 'agent-state');
  const run = path.join(place.folder, 'agent-run');
  for (const folder of [state, run]) mkdirSync(folder, { recursive: true });
  const tracing = new TracingInstance(state);
  // Undone after the agent has ended.
  place.undo.add('remove the tracing instance', () => tracing.remove());
  const running = launch(place, 'agent', [
    'dataplane/agent/main.ts',
    ...['--name', MACHINE],
    ...['--process-server', `127.0.0.1:${options.port}`],
    ...['--passphrase-file', secretFile(place, 'passphrase', options.passphrase)],
    ...['--state', state],
    ...['--run', run],
    ...(options.flags ?? []),
  ]);
  const kill = async () => {
    await running.kill();
    tracing.note();
  };
  return { ...running, kill, state, run };
}

/** What an agent that ends leaves in the kernel for its successor; here none comes. */
class TracingInstance {
  readonly #state: string;
  #machineId: string | undefined;

  /** `state`: the agent's directory, which may be gone later. */
  constructor(state: string) {
    this.#state = state;
  }

  /** Remembers whose it is: the machine's id, which the agent had before it began to trace. */
  note(): void {
    const identity = path.join(this.#state, 'identity.json');
    if (!existsSync(identity)) return;
    this.#machineId = (
      JSON.parse(readFileSync(identity, 'utf8')) as { machineId: string }
    ).machineId;
  }

  remove(): void {
    this.note();
    const instance = `/sys/kernel/tracing/instances/farshore-${this.#machineId}`;
    if (this.#machineId !== undefined && existsSync(instance)) rmdirSync(instance);
  }
}

interface Launch {
  /** What to run the program with, such as `ip netns exec NAME`. */
  inside?: readonly string[];
}

function launch(
  place: Placement,
  name: string,
  command: readonly string[],
  { inside = [] }: Launch = {},
): Running {
  const [program = '', ...args] = command;
  const running = start({
    name,
    // Told to end when whoever started it dies: it is in no process group that a terminal signals.
    command: [
      ...[...inside, 'setpriv', '--pdeathsig', 'TERM'],
      ...[process.execPath, path.join(root, program), ...args],
    ],
    logs: place.logs,
  });
  place.undo.add(`stop the ${name}`, () => running.stop());
  return running;
}

function secretFile(place: Placement, name: string, text: string): string {
  const file = path.join(place.folder, name);
  writeFileSync(file, text, { mode: 0o600 });
  return file;
}
