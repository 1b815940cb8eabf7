import { runSeed } from './run.ts';
const [from, count, print] = process.argv.slice(2).map(Number);
for (let seed = from ?? 1; seed < (from ?? 1) + (count ?? 1); seed += 1) {
  const start = performance.now();
  const r = await runSeed(seed, print ? { print: (line) => console.log(line) } : {});
  console.log(seed, (performance.now() - start).toFixed(0), 'ms', r.events, r.ms, 'points', r.points, r.trace, JSON.stringify(r.breaches).slice(0,600));
}
