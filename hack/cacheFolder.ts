import { mkdirSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';

/**
 * Where what is expensive to make is kept between runs, outside the repository: Kubernetes, Go, kernels, machines. $FARSHORE_CACHE,
 * else the user's cache directory. The folder is made; nothing says that what it is for is in it.
 */
export function cacheFolder(...names: string[]): string {
  const base =
    process.env.FARSHORE_CACHE ??
    path.join(process.env.XDG_CACHE_HOME ?? path.join(os.homedir(), '.cache'), 'farshore');
  const folder = path.join(base, ...names);
  mkdirSync(folder, { recursive: true });
  return folder;
}
