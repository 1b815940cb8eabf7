import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';

export const corpusFolder = path.join(import.meta.dirname, 'corpus');
/** An input that is kept has at most so many bytes, all of a target's together at most so many. */
const INPUT_MAX = 2048;
const TARGET_MAX = 6 << 10;

/** Inputs that were found earlier. */
export function keptInputs(target: string): { name: string; bytes: Uint8Array }[] {
  const directory = path.join(corpusFolder, target);
  let names: string[];
  try {
    names = readdirSync(directory).sort();
  } catch {
    return [];
  }
  return names.map((name) => ({
    name,
    bytes: new Uint8Array(readFileSync(path.join(directory, name))),
  }));
}

/** Keeps an input that broke something (always) or reached something new (while there is room). Returns whether it did. */
export function keep(target: string, bytes: Uint8Array, what: 'breach' | 'reach'): boolean {
  const kept = keptInputs(target);
  const name = `${what}-${createHash('sha256').update(bytes).digest('hex').slice(0, 12)}`;
  const used = kept.reduce((sum, input) => sum + input.bytes.length, 0);
  if (kept.some((input) => input.name === name)) return false;
  if (what === 'reach' && (bytes.length > INPUT_MAX || used + bytes.length > TARGET_MAX))
    return false;
  mkdirSync(path.join(corpusFolder, target), { recursive: true });
  writeFileSync(path.join(corpusFolder, target, name), bytes);
  return true;
}
