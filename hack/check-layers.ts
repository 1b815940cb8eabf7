/**
 * Reads every import in the tree and fails when a layer reaches where it may not (docs/ARCHITECTURE.md, "Layers").
 *
 * A layer is a folder; the longest matching folder name decides. Also fails when product code outside the adapters and `main.ts`
 * touches time, chance, files, processes or the network directly: the simulation sees those through ports alone.
 */
import { globSync, readFileSync } from 'node:fs';
import path from 'node:path';

/** What each layer may import besides itself; `main.ts` files of a process may also import adapters. */
const layers: Record<string, readonly string[]> = {
  crds: [],
  platform: ['crds'],
  'platform/azure': ['platform', 'crds'],
  'platform/kube': ['platform', 'crds'],
  'platform/linux': ['platform'],
  'platform/node': ['platform'],
  vault: ['platform'],
  'dataplane/journal': ['vault', 'platform'],
  'dataplane/wire': ['dataplane/journal', 'vault', 'platform'],
  'dataplane/capture': ['dataplane/journal', 'dataplane/wire', 'vault', 'platform'],
  'dataplane/agent': [
    'dataplane/capture',
    'dataplane/wire',
    'dataplane/journal',
    'vault',
    'platform',
  ],
  'dataplane/processserver': ['dataplane/wire', 'dataplane/journal', 'vault', 'platform'],
  'dataplane/applier': ['dataplane/journal', 'vault', 'platform'],
  recovery: ['dataplane/journal', 'vault', 'platform'],
  controllers: ['recovery', 'crds', 'vault', 'platform', 'controllers/runtime'],
  'controllers/runtime': ['crds', 'platform'],
  operator: ['controllers', 'controllers/runtime', 'recovery', 'vault', 'crds', 'platform'],
  cli: ['recovery', 'vault', 'crds', 'platform'],
};
const adapters = ['platform/azure', 'platform/kube', 'platform/linux', 'platform/node'];
/** Rooms outside the product, which may import anything. */
const free = ['test', 'hack'];

const worldModules =
  /^node:(fs|net|tls|http|https|http2|dgram|dns|child_process|worker_threads|timers|os)(\/|$)/;
const worldCalls =
  /\b(Date\.now|new Date\(\)|performance\.now|Math\.random|setTimeout|setInterval|crypto\.randomUUID)\b/;

const root = path.resolve(import.meta.dirname, '..');
const breaches: string[] = [];

for (const file of globSync('**/*.ts', { cwd: root, exclude: ['node_modules/**'] })) {
  const from = layerOf(file);
  if (from === undefined) {
    if (!free.includes(file.split('/')[0] ?? '') && file.includes('/'))
      breaches.push(`${file}: its folder is no layer`);
    continue;
  }
  if (file.endsWith('.test.ts')) continue;
  const source = readFileSync(path.join(root, file), 'utf8');
  const isMain = path.basename(file) === 'main.ts';
  const isAdapter = adapters.includes(from);
  for (const imported of importsOf(source)) {
    if (imported.startsWith('.'))
      checkImport(file, from, path.normalize(path.join(path.dirname(file), imported)), isMain);
    else if (worldModules.test(imported) && !isMain && !isAdapter)
      breaches.push(`${file}: imports ${imported}; only adapters and main.ts may`);
  }
  if (!isMain && !isAdapter)
    for (const [index, line] of source.split('\n').entries())
      if (worldCalls.test(line) && !/^\s*(\*|\/\/)/.test(line))
        breaches.push(
          `${file}:${index + 1}: reaches for the world (${worldCalls.exec(line)?.[0]}); use a port`,
        );
}

for (const breach of breaches) console.error(breach);
console.log(breaches.length === 0 ? 'layers: no breach' : `layers: ${breaches.length} breaches`);
process.exitCode = breaches.length === 0 ? 0 : 1;

function checkImport(file: string, from: string, target: string, isMain: boolean): void {
  const to = layerOf(target);
  if (to === from) return;
  if (to === undefined) {
    breaches.push(`${file}: imports ${target}, which is not product code`);
    return;
  }
  if (isMain && adapters.includes(to)) return;
  if (!layers[from]?.includes(to))
    breaches.push(`${file}: ${from} may not import ${to} (${target})`);
}

function layerOf(file: string): string | undefined {
  return Object.keys(layers)
    .filter((layer) => file.startsWith(`${layer}/`))
    .sort((a, b) => b.length - a.length)[0];
}

function importsOf(source: string): string[] {
  return [...source.matchAll(/(?:from|import)\s*\(?\s*'([^']+)'/g)].map((match) => match[1] ?? '');
}
