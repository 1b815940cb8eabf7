import { isDeepStrictEqual } from 'node:util';
import type { KubeObject, ResourceType, WatchEvent } from '../../platform/kubernetes.ts';

export type StoredObject = KubeObject & Record<string, unknown>;

interface Entry {
  version: number;
  kind: string;
  id: string;
  before: StoredObject | undefined;
  /** Undefined: it went. */
  after: StoredObject | undefined;
}

/** Every object as it is and as it was at every version, as etcd keeps them. */
export class KubeHistory {
  readonly #objects = new Map<string, StoredObject>();
  readonly #entries: Entry[] = [];
  readonly #wakers = new Set<() => void>();
  #version = 100;
  #oldest = 0;

  get version(): number {
    return this.#version;
  }

  /** What was before now is forgotten. */
  compact(): void {
    this.#oldest = this.#version;
  }

  hasForgotten(version: number): boolean {
    return version < this.#oldest;
  }

  get(id: string): StoredObject | undefined {
    return this.#objects.get(id);
  }

  /** Makes the object be so, or be gone: under a new version, unless it is so already. Returns it as it was last. */
  put(
    type: ResourceType,
    object: StoredObject,
    where: { id: string; gone: boolean },
  ): StoredObject {
    const { id, gone } = where;
    const before = this.#objects.get(id);
    if (before !== undefined && !gone && isSame(before, object)) return before;
    this.#version += 1;
    const stored = withVersion(object, this.#version);
    if (gone) this.#objects.delete(id);
    else this.#objects.set(id, stored);
    const after = gone ? undefined : stored;
    this.#entries.push({ version: this.#version, kind: kindOf(type), id, before, after });
    this.wake();
    return stored;
  }

  /** All of a kind, as they were at that version, in the order of their names. */
  at(version: number, type: ResourceType): StoredObject[] {
    const objects = new Map<string, StoredObject>();
    for (const entry of this.#entries) {
      if (entry.version > version) break;
      if (entry.kind !== kindOf(type)) continue;
      if (entry.after === undefined) objects.delete(entry.id);
      else objects.set(entry.id, entry.after);
    }
    return [...objects].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, object]) => object);
  }

  /** The first change after that version that a watch of what `selects` selects is told. */
  next(
    version: number,
    options: { type: ResourceType; selects: (object: KubeObject) => boolean },
  ): { version: number; event: WatchEvent<StoredObject> } | undefined {
    const kind = kindOf(options.type);
    for (let index = this.#after(version); index < this.#entries.length; index += 1) {
      const entry = this.#entries[index];
      if (entry === undefined || entry.kind !== kind) continue;
      const event = eventOf(entry, options.selects);
      if (event !== undefined) return { version: entry.version, event };
    }
    return undefined;
  }

  /** Resolves at the next change, at `wake`, or once the signal aborts. */
  changed(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const wake = () => {
        this.#wakers.delete(wake);
        signal.removeEventListener('abort', wake);
        resolve();
      };
      this.#wakers.add(wake);
      signal.addEventListener('abort', wake, { once: true });
    });
  }

  wake(): void {
    for (const wake of [...this.#wakers]) wake();
  }

  /** Versions rise by one with each entry. */
  #after(version: number): number {
    const first = this.#entries[0]?.version ?? 0;
    return Math.max(0, version + 1 - first);
  }
}

/** What comes to be selected appears, and what stops being selected goes, whatever else becomes of it. */
function eventOf(
  { version, before, after }: Entry,
  selects: (object: KubeObject) => boolean,
): WatchEvent<StoredObject> | undefined {
  const was = before !== undefined && selects(before);
  if (after !== undefined && selects(after))
    return { type: was ? 'modified' : 'added', object: structuredClone(after) };
  if (!was) return undefined;
  return { type: 'deleted', object: structuredClone(withVersion(before, version)) };
}

function kindOf(type: ResourceType): string {
  return `${type.group}/${type.plural}`;
}

function withVersion(object: StoredObject, version: number): StoredObject {
  return { ...object, metadata: { ...object.metadata, resourceVersion: String(version) } };
}

function isSame(a: StoredObject, b: StoredObject): boolean {
  return isDeepStrictEqual(withVersion(a, 0), withVersion(b, 0));
}
