/**
 * Debian's cloud kernel for machines that boot under QEMU: fetched with `apt-get download`, unpacked, and kept in a cache
 * outside the repository, one folder a version. Nothing is installed on this machine.
 */
import { execFileSync } from 'node:child_process';
import {
  existsSync,
  globSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
} from 'node:fs';
import path from 'node:path';
import { cacheFolder } from '../../hack/cacheFolder.ts';

export interface CloudKernel {
  /** As `uname -r` says it in the guest. */
  version: string;
  vmlinuz: string;
  /** lib/modules/<version>/ of the package. */
  modules: string;
}

/** The kernel from the cache, or the newest that Debian has. Throws when there is neither. */
export function cloudKernel(): CloudKernel {
  const kernels = cacheFolder('kernels');
  const cached = readdirSync(kernels)
    .filter((name) => !name.startsWith('.'))
    .sort((a, b) => a.localeCompare(b, 'en', { numeric: true }))
    .at(-1);
  if (cached !== undefined) return kernelIn(path.join(kernels, cached));
  return kernelIn(fetchKernel(kernels));
}

function fetchKernel(kernels: string): string {
  const packageName = /Depends: (linux-image-\S+-cloud-amd64)/.exec(
    execFileSync('apt-cache', ['depends', 'linux-image-cloud-amd64'], { encoding: 'utf8' }),
  )?.[1];
  if (packageName === undefined)
    throw new Error('apt knows no linux-image-cloud-amd64: run apt-get update on a Debian 12');
  // Unpacked beside its place and renamed, so that a run that was killed leaves no half kernel behind.
  const working = mkdtempSync(path.join(kernels, '.fetching-'));
  try {
    execFileSync('apt-get', ['download', packageName], { cwd: working, stdio: 'pipe' });
    const deb = globSync('*.deb', { cwd: working })[0];
    if (deb === undefined) throw new Error(`apt-get download ${packageName} left no package`);
    execFileSync('dpkg-deb', ['-x', path.join(working, deb), path.join(working, 'root')]);
    const target = path.join(kernels, deb.replace(/\.deb$/, ''));
    if (!existsSync(target)) renameSync(path.join(working, 'root'), target);
    return target;
  } finally {
    rmSync(working, { recursive: true, force: true });
  }
}

function kernelIn(root: string): CloudKernel {
  const version = readdirSync(path.join(root, 'lib/modules'))[0];
  if (version === undefined) throw new Error(`${root} holds no kernel: remove it and run again`);
  return {
    version,
    vmlinuz: path.join(root, 'boot', `vmlinuz-${version}`),
    modules: path.join(root, 'lib/modules', version),
  };
}

/** Files of the named modules and of all they depend on, in the order in which `insmod` must be given them. */
export function modulesInOrder(kernel: CloudKernel, names: readonly string[]): string[] {
  const files = new Map(
    globSync('kernel/**/*.ko', { cwd: kernel.modules }).map((file) => [
      moduleName(path.basename(file, '.ko')),
      path.join(kernel.modules, file),
    ]),
  );
  const builtin = new Set(
    readFileSync(path.join(kernel.modules, 'modules.builtin'), 'utf8')
      .split('\n')
      .map((line) => moduleName(path.basename(line, '.ko'))),
  );
  const ordered: string[] = [];
  const visit = (name: string) => {
    if (builtin.has(name)) return;
    const file = files.get(name);
    if (file === undefined) throw new Error(`kernel ${kernel.version} has no module ${name}`);
    if (ordered.includes(file)) return;
    for (const dependency of dependenciesOf(file)) visit(dependency);
    ordered.push(file);
  };
  for (const name of names) visit(moduleName(name));
  return ordered;
}

/** A module names what it needs in its .modinfo section: NUL-separated `key=value`. */
function dependenciesOf(file: string): string[] {
  const modinfo = /\0depends=([^\0]*)\0/.exec(readFileSync(file, 'latin1'))?.[1] ?? '';
  return modinfo.split(',').filter(Boolean).map(moduleName);
}

function moduleName(name: string): string {
  return name.replaceAll('-', '_');
}
