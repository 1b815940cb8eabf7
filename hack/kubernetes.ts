/**
 * Gets kube-apiserver, etcd and kubectl for tests and the demo, from the nearest place that has them:
 * $KUBEBUILDER_ASSETS (what setup-envtest fills), our own cache, the projects' official downloads, and last a build from source
 * (about three minutes on two cores, the Go modules beside this file pin it).
 *
 *   node hack/kubernetes.ts        prints the folder
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdtempSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { cacheFolder } from './cacheFolder.ts';
import { findGo, type Making } from './go.ts';

const run = promisify(execFile);

const KUBERNETES_VERSION = '1.35.4';
const ETCD_VERSION = '3.6.16';
const BINARIES = ['kube-apiserver', 'etcd', 'kubectl'] as const;
/** Whoever has no way out must not wait long for finding that out. */
const CONNECT_TIMEOUT_MS = 5_000;

/** The folder that holds the three binaries; made when it is not there. */
export async function ensureKubernetes(making: Making = {}): Promise<string> {
  const assets = process.env.KUBEBUILDER_ASSETS;
  if (assets !== undefined && hasAll(assets)) return assets;
  const cached = path.join(cacheFolder(), `kubernetes-${KUBERNETES_VERSION}-etcd-${ETCD_VERSION}`);
  if (hasAll(cached)) return cached;
  const made = mkdtempSync(`${cached}.`);
  try {
    if (!(await download(made, making))) await build(made, making);
    if (!hasAll(made)) throw new Error(`the build left no ${BINARIES.join(', ')} in ${made}`);
    // Two runs may have made it at the same time: the first one's stays.
    if (!hasAll(cached)) {
      rmSync(cached, { recursive: true, force: true });
      renameSync(made, cached);
    }
  } finally {
    rmSync(made, { recursive: true, force: true });
  }
  return cached;
}

function hasAll(folder: string): boolean {
  return BINARIES.every((binary) => existsSync(path.join(folder, binary)));
}

async function download(folder: string, making: Making): Promise<boolean> {
  const fetchBytes = async (url: string) => await fetched(url, making.signal);
  const architecture = process.arch === 'arm64' ? 'arm64' : 'amd64';
  const kubernetes = `https://dl.k8s.io/v${KUBERNETES_VERSION}/bin/linux/${architecture}`;
  const etcdName = `etcd-v${ETCD_VERSION}-linux-${architecture}`;
  const etcd = `https://github.com/etcd-io/etcd/releases/download/v${ETCD_VERSION}`;
  try {
    for (const binary of ['kube-apiserver', 'kubectl']) {
      const sum = (await fetchBytes(`${kubernetes}/${binary}.sha256`)).toString('utf8').trim();
      making.say?.(`downloading ${binary} ${KUBERNETES_VERSION}`);
      writeChecked(path.join(folder, binary), await fetchBytes(`${kubernetes}/${binary}`), sum);
    }
    const sums = (await fetchBytes(`${etcd}/SHA256SUMS`)).toString('utf8');
    const sum = sums
      .split('\n')
      .find((line) => line.endsWith(`${etcdName}.tar.gz`))
      ?.split(/\s+/)[0];
    making.say?.(`downloading etcd ${ETCD_VERSION}`);
    const archive = path.join(folder, 'etcd.tar.gz');
    writeChecked(archive, await fetchBytes(`${etcd}/${etcdName}.tar.gz`), sum ?? 'missing');
    const place = ['-C', folder, '--strip-components=1', `${etcdName}/etcd`];
    await run('tar', ['-xzf', archive, ...place]);
    rmSync(archive);
    return hasAll(folder);
  } catch (error) {
    making.signal?.throwIfAborted();
    making.say?.(
      `no official download of Kubernetes (${error instanceof Error ? error.message : error}); building it from source`,
    );
    return false;
  }
}

async function fetched(url: string, ending: AbortSignal | undefined): Promise<Buffer> {
  const abort = new AbortController();
  const timer = setTimeout(() => abort.abort(new Error('no answer')), CONNECT_TIMEOUT_MS);
  const signal = AbortSignal.any([abort.signal, ...(ending === undefined ? [] : [ending])]);
  try {
    const response = await fetch(url, { signal });
    clearTimeout(timer);
    if (!response.ok) throw new Error(`${url}: ${response.status}`);
    return Buffer.from(await response.arrayBuffer());
  } finally {
    clearTimeout(timer);
  }
}

function writeChecked(file: string, bytes: Buffer, sha256: string): void {
  const actual = createHash('sha256').update(bytes).digest('hex');
  if (actual !== sha256)
    throw new Error(`${path.basename(file)} has SHA-256 ${actual}, not ${sha256}`);
  writeFileSync(file, bytes);
  chmodSync(file, 0o755);
}

async function build(folder: string, making: Making): Promise<void> {
  const go = await findGo(making);
  const sources = path.join(import.meta.dirname, 'kubernetes');
  // A copy: the Go command may touch go.sum, and a test must not change the tree.
  const work = mkdtempSync(path.join(os.tmpdir(), 'farshore-kubernetes-'));
  const [major, minor] = KUBERNETES_VERSION.split('.');
  const version = 'k8s.io/component-base/version';
  const kubernetesFlags = `-s -w -X ${version}.gitVersion=v${KUBERNETES_VERSION} -X ${version}.gitMajor=${major} -X ${version}.gitMinor=${minor}`;
  const compile = async (
    module: string,
    flags: string,
    to: { output: string; packages: string[] },
  ) => {
    const output = ['-o', `${folder}/${to.output}`];
    await run(go, ['build', '-trimpath', '-ldflags', flags, ...output, ...to.packages], {
      cwd: path.join(work, module),
      env: { ...process.env, CGO_ENABLED: '0' },
      maxBuffer: 64 << 20,
      // What it tidies up after.
      killSignal: 'SIGINT',
      ...(making.signal === undefined ? {} : { signal: making.signal }),
    });
  };
  try {
    cpSync(sources, work, { recursive: true });
    making.say?.(`building etcd ${ETCD_VERSION}`);
    await compile('etcd', '-s -w', { output: 'etcd', packages: ['.'] });
    making.say?.(`building kube-apiserver and kubectl ${KUBERNETES_VERSION} (a few minutes)`);
    await compile('kubernetes', kubernetesFlags, {
      output: '',
      packages: ['k8s.io/kubernetes/cmd/kube-apiserver', 'k8s.io/kubernetes/cmd/kubectl'],
    });
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

if (process.argv[1] === import.meta.filename)
  console.log(await ensureKubernetes({ say: (line) => console.error(line) }));
