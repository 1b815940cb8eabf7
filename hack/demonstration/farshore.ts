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

/** `name`: of one among several; its files carry it too. */
export function startProcessServer(
  bootstrap: string,
  place: Placement,
  options: Launch & { name?: string; cache?: string; metricsPort?: number } = {},
): Running & { cache: string } {
  const { name = 'processserver', metricsPort = 0 } = options;
  const cache = options.cache ?? path.join(place.folder, name);
  mkdirSync(cache, { recursive: true });
  const command = [
    'dataplane/processserver/main.ts',
    ...['--bootstrap', secretFile(place, `${name}.bootstrap`, bootstrap)],
    ...['--cache', cache],
    ...['--metrics-port', String(metricsPort)],
  ];
  return { ...launch(place, name, command, options), cache };
}

export function startApplier(bootstrap: string, place: Placement, options: Launch = {}): Running {
  const state = path.join(place.folder, 'applier');
  mkdirSync(state, { recursive: true });
  const command = [
    'dataplane/applier/main.ts',
    ...['--bootstrap', secretFile(place, 'applier.bootstrap', bootstrap)],
    ...['--state', state],
    ...['--metrics-port', '0'],
  ];
  return launch(place, 'applier', command, options);
}

/** `name`: of the machine; `folder` of the place is this agent's alone. */
export function startAgent(
  options: Launch & {
    passphrase: string;
    port: number;
    host?: string;
    name?: string;
    flags?: readonly string[];
  },
  place: Placement,
): Running & { state: string; run: string } {
  const { name = MACHINE, host = '127.0.0.1' } = options;
  const state = path.join(place.folder, 'agent-state');
  const run = path.join(place.folder, 'agent-run');
  for (const folder of [state, run]) mkdirSync(folder, { recursive: true });
  const tracing = new TracingInstance(state);
  // Undone after the agent has ended.
  place.undo.add('remove the tracing instance', () => tracing.remove());
  const command = [
    'dataplane/agent/main.ts',
    ...['--name', name],
    ...['--process-server', `${host}:${options.port}`],
    ...['--passphrase-file', secretFile(place, 'passphrase', options.passphrase)],
    ...['--state', state],
    ...['--run', run],
    ...(options.flags ?? []),
  ];
  const running = launch(place, name === MACHINE ? 'agent' : `agent-${name}`, command, options);
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
  /** What to run the program with, such as `ip netns exec NAME`; a program that is replaced by what it runs. */
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
