/** Somebody who applies resources to an API server, and remembers with what words it was refused. */
import { expect } from 'vitest';
import { API_GROUP_VERSION } from '../../../crds/index.ts';
import type { HttpKubeClient } from '../../../platform/kube/client.ts';
import { isKubeError, type KubeObject, type ResourceType } from '../../../platform/kubernetes.ts';
import type { Case, Edit, Spec } from './specs.ts';

export type Loose = KubeObject & { spec: Record<string, unknown> };
type Expectation = (edit: Edit, message: RegExp) => Promise<void>;

export class Applicant {
  /** What every refused call was told. */
  readonly refused: string[] = [];
  readonly #client: () => HttpKubeClient;
  readonly #namespace: string;
  #count = 0;

  constructor(client: () => HttpKubeClient, options: { namespace: string }) {
    this.#client = client;
    this.#namespace = options.namespace;
  }

  get client(): HttpKubeClient {
    return rememberingRefusals(this.#client(), this.refused);
  }

  async create<T extends KubeObject>(type: ResourceType, spec: Spec, name?: string): Promise<T> {
    this.#count += 1;
    return await this.client.create<T>(type, {
      apiVersion: API_GROUP_VERSION,
      kind: type.kind,
      metadata: { namespace: this.#namespace, name: name ?? `t${this.#count}` },
      spec,
    } as unknown as T);
  }

  async applyStatus(type: ResourceType, object: KubeObject, status: unknown): Promise<void> {
    await this.client.applyStatus(type, {
      apiVersion: object.apiVersion,
      kind: object.kind,
      metadata: { name: object.metadata.name, namespace: this.#namespace },
      status,
    });
  }

  /** Expects that a valid spec, edited, is refused with the message, and that it is not refused for any other reason. */
  refusals(type: ResourceType, valid: () => Spec): Expectation {
    return async (edit, message) => {
      const spec = structuredClone(valid());
      edit(spec);
      await expectRefusal(this.create(type, spec), message);
      await this.create(type, valid());
    };
  }

  changesRefused(type: ResourceType, valid: () => Spec): Expectation {
    return async (edit, message) => {
      const object = await this.create<Loose>(type, valid());
      edit(object.spec);
      await expectRefusal(this.client.replace(type, object), message);
    };
  }

  async changeAccepted(type: ResourceType, valid: () => Spec, edit: Edit): Promise<void> {
    const object = await this.create<Loose>(type, valid());
    edit(object.spec);
    await this.client.replace(type, object);
  }
}

/** As `it.each` takes them. */
export function cases(of: readonly Case[]): [string, Edit, RegExp][] {
  return of.map(([what, edit, message]) => [what, edit, message]);
}

async function expectRefusal(call: Promise<unknown>, message: RegExp): Promise<void> {
  const error = await call.then(
    () => new Error('it was accepted'),
    (failure) => failure,
  );
  expect(error.message).toMatch(message);
  expect(isKubeError(error, 'Invalid')).toBe(true);
}

function rememberingRefusals(connected: HttpKubeClient, refused: string[]): HttpKubeClient {
  return new Proxy(connected, {
    get(target, property) {
      const value = Reflect.get(target, property, target);
      if (typeof value !== 'function') return value;
      return (...args: unknown[]) => {
        const answer = value.apply(target, args);
        if (answer instanceof Promise) answer.catch((error) => refused.push(error.message));
        return answer;
      };
    },
  });
}
