/**
 * A real kube-apiserver and etcd on loopback ports, for tests and the demo. No controller manager, scheduler or node: nothing
 * collects garbage and no pod runs.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { ensureKubernetes } from '../../hack/kubernetes.ts';
import { writeClusterKeys } from './kubernetesKeys.ts';

const START_TIMEOUT_MS = 90_000;

export interface KubernetesServer {
  /** Holds certificates, etcd's data, logs and the kubeconfig. */
  readonly directory: string;
  readonly url: string;
  readonly kubeconfigPath: string;
  /** The folder of kube-apiserver, etcd and kubectl. */
  readonly binaries: string;
  /** Runs kubectl as cluster administrator; returns stdout, throws with stderr in the message. */
  kubectl(args: readonly string[], options?: { input?: string }): string;
  /** Kills the API server; etcd keeps its data. */
  stopApiServer(): Promise<void>;
  /** Starts it again on the same port, and waits until it is ready. */
  startApiServer(): Promise<void>;
  restartApiServer(): Promise<void>;
  /** Makes etcd forget all revisions before now, so that older watches and list pages answer 410. */
  compact(): Promise<void>;
  /** Ends everything; removes the directory when it was not given. */
  stop(): Promise<void>;
}

/**
 * Starts a cluster with whatever state `dir` holds (made when missing), or an empty one in a directory that `stop` removes.
 * `inside`: what its programs, kubectl too, are run with, such as `ip netns exec NAME`.
 */
export async function startKubernetes(
  options: { dir?: string; inside?: readonly string[] } = {},
): Promise<KubernetesServer> {
  const binaries = await ensureKubernetes({ say: (line) => console.error(line) });
  const directory = options.dir ?? mkdtempSync(path.join(os.tmpdir(), 'farshore-kubernetes-'));
  mkdirSync(directory, { recursive: true });
  const cluster = new Cluster({
    binaries,
    directory,
    ownsDirectory: options.dir === undefined,
    inside: options.inside ?? [],
  });
  try {
    await cluster.start();
    return cluster;
  } catch (error) {
    await cluster.stop();
    throw error;
  }
}

class Cluster implements KubernetesServer {
  readonly binaries: string;
  readonly directory: string;
  readonly #ownsDirectory: boolean;
  readonly #inside: readonly string[];
  #ports = { etcd: 0, etcdPeer: 0, apiServer: 0 };
  #etcd: ChildProcess | undefined;
  #apiServer: ChildProcess | undefined;

  constructor(options: {
    binaries: string;
    directory: string;
    ownsDirectory: boolean;
    inside: readonly string[];
  }) {
    this.binaries = options.binaries;
    this.directory = options.directory;
    this.#ownsDirectory = options.ownsDirectory;
    this.#inside = options.inside;
  }

  get url(): string {
    return `https://127.0.0.1:${this.#ports.apiServer}`;
  }

  get kubeconfigPath(): string {
    return path.join(this.directory, 'kubeconfig');
  }

  async start(): Promise<void> {
    const [etcd, etcdPeer, apiServer] = await freePorts(3);
    this.#ports = { etcd: etcd ?? 0, etcdPeer: etcdPeer ?? 0, apiServer: apiServer ?? 0 };
    if (!existsSync(this.kubeconfigPath)) await writeClusterKeys(this.directory);
    writeFileSync(this.kubeconfigPath, this.#kubeconfig(), { mode: 0o600 });
    this.#startEtcd();
    await this.startApiServer();
  }

  kubectl(args: readonly string[], options: { input?: string } = {}): string {
    const [program = '', ...before] = [...this.#inside, path.join(this.binaries, 'kubectl')];
    return execFileSync(
      program,
      [
        ...before,
        `--kubeconfig=${this.kubeconfigPath}`,
        // Else kubectl remembers in the home directory what another server on this port once served.
        `--cache-dir=${path.join(this.directory, 'kubectl')}`,
        ...args,
      ],
      {
        encoding: 'utf8',
        input: options.input ?? '',
        stdio: ['pipe', 'pipe', 'pipe'],
        maxBuffer: 64 << 20,
      },
    );
  }

  async startApiServer(): Promise<void> {
    const file = (name: string) => path.join(this.directory, name);
    this.#apiServer = this.#spawn('kube-apiserver', [
      `--etcd-servers=${this.#etcdUrl}`,
      '--bind-address=127.0.0.1',
      '--advertise-address=127.0.0.1',
      `--secure-port=${this.#ports.apiServer}`,
      `--tls-cert-file=${file('apiserver.crt')}`,
      `--tls-private-key-file=${file('apiserver.key')}`,
      `--client-ca-file=${file('ca.crt')}`,
      '--service-account-issuer=https://kubernetes.default.svc',
      `--service-account-key-file=${file('service-account.pub')}`,
      `--service-account-signing-key-file=${file('service-account.key')}`,
      '--authorization-mode=RBAC',
      '--service-cluster-ip-range=10.96.0.0/16',
      '--allow-privileged=true',
      '--disable-admission-plugins=ServiceAccount',
      '--endpoint-reconciler-type=none',
    ]);
    await this.#untilReady(this.#apiServer);
  }

  async stopApiServer(): Promise<void> {
    await end(this.#apiServer, 'SIGKILL');
    this.#apiServer = undefined;
  }

  async restartApiServer(): Promise<void> {
    await this.stopApiServer();
    await this.startApiServer();
  }

  async compact(): Promise<void> {
    const call = async (
      route: string,
      body: object,
    ): Promise<{ header?: { revision?: string } }> => {
      const response = await fetch(`${this.#etcdUrl}/v3/${route}`, {
        method: 'POST',
        body: JSON.stringify(body),
      });
      if (!response.ok)
        throw new Error(`etcd ${route}: ${response.status} ${await response.text()}`);
      return (await response.json()) as { header?: { revision?: string } };
    };
    const now = await call('kv/range', { key: Buffer.from('x').toString('base64') });
    await call('kv/compaction', { revision: now.header?.revision, physical: true });
  }

  async stop(): Promise<void> {
    await this.stopApiServer();
    await end(this.#etcd, 'SIGKILL');
    this.#etcd = undefined;
    if (this.#ownsDirectory) rmSync(this.directory, { recursive: true, force: true });
  }

  get #etcdUrl(): string {
    return `http://127.0.0.1:${this.#ports.etcd}`;
  }

  #startEtcd(): void {
    const peer = `http://127.0.0.1:${this.#ports.etcdPeer}`;
    this.#etcd = this.#spawn('etcd', [
      `--data-dir=${path.join(this.directory, 'etcd')}`,
      `--listen-client-urls=${this.#etcdUrl}`,
      `--advertise-client-urls=${this.#etcdUrl}`,
      `--listen-peer-urls=${peer}`,
      `--initial-advertise-peer-urls=${peer}`,
      `--initial-cluster=default=${peer}`,
      '--unsafe-no-fsync',
    ]);
  }

  /** The kernel kills the server when this process dies in whatever way. */
  #spawn(binary: string, args: readonly string[]): ChildProcess {
    const log = openSync(path.join(this.directory, `${binary}.log`), 'a');
    const command = [
      ...this.#inside,
      ...['setpriv', '--pdeathsig', 'KILL', path.join(this.binaries, binary)],
      ...args,
    ];
    const [program = '', ...rest] = command;
    // It lives for minutes and with room to spare: collecting garbage less often starts it a third cheaper.
    const env = { ...process.env, GOGC: '400' };
    return spawn(program, rest, { env, stdio: ['ignore', log, log] });
  }

  async #untilReady(server: ChildProcess): Promise<void> {
    const deadline = performance.now() + START_TIMEOUT_MS;
    let last = 'no answer';
    while (performance.now() < deadline) {
      if (server.exitCode !== null || server.signalCode !== null)
        throw new Error(`kube-apiserver ended: ${this.#logTail('kube-apiserver')}`);
      if (this.#etcd?.exitCode !== null) throw new Error(`etcd ended: ${this.#logTail('etcd')}`);
      try {
        this.kubectl(['get', '--raw', '/readyz', '--request-timeout=5s']);
        this.kubectl(['get', 'namespace', 'default', '--request-timeout=5s']);
        return;
      } catch (error) {
        last = error instanceof Error ? error.message : String(error);
        await new Promise((resolve) => setTimeout(resolve, 200));
      }
    }
    throw new Error(`kube-apiserver is not ready after ${START_TIMEOUT_MS} ms: ${last}`);
  }

  #logTail(binary: string): string {
    return readFileSync(path.join(this.directory, `${binary}.log`), 'utf8').slice(-2000);
  }

  #kubeconfig(): string {
    const data = (name: string) => readFileSync(path.join(this.directory, name)).toString('base64');
    return JSON.stringify({
      apiVersion: 'v1',
      kind: 'Config',
      'current-context': 'farshore',
      clusters: [
        {
          name: 'farshore',
          cluster: { server: this.url, 'certificate-authority-data': data('ca.crt') },
        },
      ],
      users: [
        {
          name: 'admin',
          user: {
            'client-certificate-data': data('admin.crt'),
            'client-key-data': data('admin.key'),
          },
        },
      ],
      contexts: [
        { name: 'farshore', context: { cluster: 'farshore', user: 'admin', namespace: 'default' } },
      ],
    });
  }
}

/** Ports that were free a moment ago, all different. */
async function freePorts(count: number): Promise<number[]> {
  const servers = await Promise.all(
    Array.from(
      { length: count },
      () =>
        new Promise<net.Server>((resolve, reject) => {
          const server = net.createServer();
          server.once('error', reject);
          server.listen(0, '127.0.0.1', () => resolve(server));
        }),
    ),
  );
  const ports = servers.map((server) => (server.address() as net.AddressInfo).port);
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}

async function end(child: ChildProcess | undefined, signal: NodeJS.Signals): Promise<void> {
  if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
  const ended = new Promise((resolve) => child.once('exit', resolve));
  child.kill(signal);
  await ended;
}
