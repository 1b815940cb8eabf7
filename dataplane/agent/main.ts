/** The agent's process: reads its options, builds the adapters, runs until it is told to stop. */
import { mkdirSync, readFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { Command } from 'commander';
import { errorCode, errorMessage, FarshoreError } from '../../platform/errors.ts';
import { linuxBlockDevices } from '../../platform/linux/blockDevice.ts';
import { LinuxFreezer } from '../../platform/linux/freezer.ts';
import { linuxHooks } from '../../platform/linux/hooks.ts';
import { linuxMachine } from '../../platform/linux/machine.ts';
import { LinuxTracer } from '../../platform/linux/tracer.ts';
import { systemClock } from '../../platform/node/clock.ts';
import { openDisk } from '../../platform/node/disk.ts';
import { createLogger, type LogLevel } from '../../platform/node/logger.ts';
import { systemRandom } from '../../platform/node/random.ts';
import { connectTls } from '../../platform/node/tls.ts';
import { processServerOfIdentities } from '../../vault/identity.ts';
import { type AgentDeps, establishIdentity, keepSession } from './agent.ts';
import { Endpoints, withPort } from './endpoints.ts';
import { type AgentIdentity, IdentityStore } from './identity.ts';
import { QuietLog } from './quietLog.ts';
import { Replication } from './replication.ts';
import { AgentStateStore } from './state.ts';

const DAY_MS = 86_400_000;

interface Options {
  name: string;
  processServer: string[];
  passphraseFile?: string;
  state: string;
  run: string;
  powerOffCommand?: string;
  freezeDeadline: number;
  finalDeadline: number;
  scrubDays: number;
  traceBufferKb?: number;
  logLevel: LogLevel;
}

const program = new Command('farshore-agent')
  .description('Copies this machine continuously to a Farshore process server')
  .requiredOption('--name <name>', 'name of the ProtectedVM', process.env.FARSHORE_NAME)
  .option(
    '--process-server <host:port>',
    'where a process server is reached; may be given several times',
    (value: string, before: string[]) => [...before, value],
    (process.env.FARSHORE_PROCESS_SERVERS ?? '').split(',').filter((part) => part !== ''),
  )
  .option(
    '--passphrase-file <file>',
    'holds the enrolment passphrase; needed once',
    process.env.FARSHORE_PASSPHRASE_FILE,
  )
  .option('--state <directory>', 'identity, kept for ever', '/var/lib/farshore-agent')
  .option('--run <directory>', 'tracking, in memory: a reboot loses it', '/run/farshore')
  .option('--power-off-command <command>', 'instead of turning this machine off')
  .option('--freeze-deadline <ms>', 'filesystems are thawed after so long at most', Number, 2_000)
  .option(
    '--final-deadline <ms>',
    "the same for a planned failover's last barrier",
    Number,
    300_000,
  )
  .option(
    '--scrub-days <days>',
    'all unchanged data is read and compared once in so long; 0: never',
    Number,
    7,
  )
  .option('--trace-buffer-kb <kb>', "the kernel's trace buffer, for each CPU", Number)
  .option('--log-level <level>', 'debug, info, warn or error', 'info');

await main(program.parse().opts<Options>());

async function main(options: Options): Promise<void> {
  const quietLog = new QuietLog(createLogger({ name: 'agent', level: options.logLevel }));
  const log = quietLog.logger;
  const stopping = new AbortController();
  for (const signal of ['SIGTERM', 'SIGINT'] as const)
    process.once(signal, () => stopping.abort(new Error(`got ${signal}`)));
  try {
    await run(options, { quietLog, signal: stopping.signal });
  } catch (error) {
    if (stopping.signal.aborted) return;
    log.error({ code: errorCode(error), error }, errorMessage(error));
    process.exitCode = 1;
  }
}

async function run(
  options: Options,
  context: { quietLog: QuietLog; signal: AbortSignal },
): Promise<void> {
  const { quietLog, signal } = context;
  const log = quietLog.logger;
  const configured = options.processServer.map(withPort);
  if (configured.length === 0)
    throw new FarshoreError(
      'NoProcessServer',
      'No process server is given: use --process-server host:port.',
    );
  for (const directory of [options.state, options.run])
    mkdirSync(directory, { recursive: true, mode: 0o700 });
  const stateDisk = openDisk(options.state);
  const identities = new IdentityStore(stateDisk);
  const machine = linuxMachine(
    options.powerOffCommand === undefined ? {} : { powerOffCommand: options.powerOffCommand },
  );
  const clock = systemClock;
  const deps: AgentDeps = { connect, identities, machine, clock, random: systemRandom, log };
  const identity = await establishIdentity(deps, {
    name: options.name,
    endpoints: configured,
    passphrase: async () => passphraseFrom(options.passphraseFile),
    signal,
  });
  const lock = await lockMachine(identity.machineId);
  const runDirectory = `${options.run}/${identity.machineId}`;
  mkdirSync(runDirectory, { recursive: true, mode: 0o700 });
  const replication = new Replication({
    machineId: identity.machineId,
    devices: linuxBlockDevices,
    tracer: new LinuxTracer({
      name: `farshore-${identity.machineId}`,
      clock,
      ...(options.traceBufferKb === undefined ? {} : { bufferKb: options.traceBufferKb }),
    }),
    freezer: new LinuxFreezer({ clock }),
    hooks: linuxHooks,
    machine,
    clock,
    store: new AgentStateStore(openDisk(runDirectory)),
    identities,
    quietLog,
    limits: { deadlineMs: options.freezeDeadline, finalDeadlineMs: options.finalDeadline },
    scrubPassMs: options.scrubDays > 0 ? options.scrubDays * DAY_MS : Number.POSITIVE_INFINITY,
  });
  try {
    await replication.start();
    const endpoints = await Endpoints.open(
      { disk: stateDisk, clock, log },
      { configured, held: () => quietLog.isQuiet },
    );
    await keepSession(deps, { identity, endpoints, replication, signal });
  } finally {
    await replication.stop();
    lock.close();
  }
}

function connect(endpoint: string, identity: AgentIdentity | undefined) {
  const colon = endpoint.lastIndexOf(':');
  const target = {
    host: endpoint.slice(0, colon).replace(/^\[|\]$/g, ''),
    port: Number(endpoint.slice(colon + 1)),
  };
  if (identity === undefined) return connectTls(target);
  return connectTls({
    ...target,
    ca: identity.caCertificatePem,
    cert: identity.certificatePem,
    key: identity.privateKeyPem,
    accepts: (identities) => processServerOfIdentities(identities) !== undefined,
  });
}

function passphraseFrom(file: string | undefined): string {
  if (file === undefined)
    throw new FarshoreError(
      'PassphraseMissing',
      'This machine is not enrolled yet: give --passphrase-file once.',
    );
  const passphrase = readFileSync(file, 'utf8').replace(/\r?\n$/, '');
  if (passphrase === '')
    throw new FarshoreError('PassphraseMissing', `${file} is empty; it must hold the passphrase.`);
  return passphrase;
}

/** Two agents with one identity would take each other's events. The name lives in the kernel and ends with this process. */
function lockMachine(machineId: string): Promise<Server> {
  return new Promise((resolve, reject) => {
    const lock = createServer();
    lock.once('error', (cause) =>
      reject(
        new FarshoreError(
          'AgentRunning',
          'Another agent for the same machine runs here already. Stop that one first.',
          { cause },
        ),
      ),
    );
    lock.listen(`\0farshore-agent-${machineId}`, () => resolve(lock));
    lock.unref();
  });
}
