import { hash } from 'node:crypto';
import type { MemoryDisk } from '../fakes/memoryDisk.ts';
import type { MemoryObjectStore } from '../fakes/memoryObjectStore.ts';
import type { SourceAgent } from '../fakes/sourceAgent.ts';

/** The world right before a process server changes something in it: where it may die. */
export interface Moment {
  disk: MemoryDisk;
  objects: MemoryObjectStore;
  agent: SourceAgent;
  writerEpoch: number;
  /** The call that was about to be made. */
  before: string;
}

interface Essential {
  essence(): Iterable<string | Uint8Array>;
}

/** Moments of the same essence have the same future. */
export function essenceOf(moment: Moment): string {
  const { disk, objects, agent, writerEpoch } = moment;
  return `${writerEpoch} ${digestOf(disk)} ${frozenDigestOf(objects)} ${frozenDigestOf(agent)}`;
}

const digests = new WeakMap<Essential, string>();

/** Of what nobody changes any more: neither does a moment's vault, nor its agent. */
function frozenDigestOf(part: Essential): string {
  const digest = digests.get(part) ?? digestOf(part);
  digests.set(part, digest);
  return digest;
}

function digestOf(part: Essential): string {
  const pieces: Uint8Array[] = [];
  for (const piece of part.essence()) {
    const bytes = typeof piece === 'string' ? Buffer.from(piece) : piece;
    pieces.push(Buffer.from(`|${bytes.length}|`), bytes);
  }
  return hash('sha1', Buffer.concat(pieces), 'hex');
}

const LOOKS: ReadonlySet<PropertyKey> = new Set([
  ...['read', 'size', 'close', 'list', 'freeBytes', 'totalBytes'],
  ...['get', 'head', 'serverTime'],
]);

/** A port that tells of each call before it changes anything. Files that it answers with are watched as well. */
export function watched<T extends object>(port: T, before: (call: string) => void): T {
  return new Proxy(port, {
    get: (target, name) => {
      const member: unknown = Reflect.get(target, name);
      if (typeof member !== 'function') return member;
      return (...args: unknown[]) => {
        const looks = LOOKS.has(name) || (name === 'open' && args[1] === 'read');
        if (!looks) before(`${String(name)} ${describe(args[0])}`);
        const result: unknown = Reflect.apply(member, target, args);
        if (name !== 'open' || !(result instanceof Promise)) return result;
        return result.then((file: object) => watched(file, (call) => before(`${call} ${args[0]}`)));
      };
    },
  });
}

function describe(argument: unknown): string {
  if (typeof argument === 'string') return argument;
  return argument instanceof Uint8Array ? `${argument.length} bytes` : JSON.stringify(argument);
}
