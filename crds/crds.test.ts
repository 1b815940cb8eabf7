import { globSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { Ajv } from 'ajv';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { API_GROUP, API_VERSION, ConditionType, farshoreTypes, Reason } from './index.ts';

interface Schema {
  type?: string;
  description?: string;
  default?: unknown;
  format?: string;
  pattern?: string;
  enum?: unknown[];
  maxLength?: number;
  maxItems?: number;
  maxProperties?: number;
  properties?: Record<string, Schema>;
  items?: Schema;
  additionalProperties?: Schema;
  'x-kubernetes-list-type'?: string;
  'x-kubernetes-validations'?: { rule: string; message?: string }[];
}
interface Crd {
  metadata: { name: string; annotations: Record<string, string> };
  spec: {
    group: string;
    scope: string;
    names: { kind: string; plural: string; shortNames: string[]; categories: string[] };
    versions: {
      name: string;
      subresources: { status: object };
      additionalPrinterColumns: { name: string; type: string; jsonPath: string }[];
      schema: { openAPIV3Schema: Schema };
    }[];
  };
}

const crds = globSync('*.yaml', { cwd: import.meta.dirname })
  .sort()
  .map((file) => parse(readFileSync(path.join(import.meta.dirname, file), 'utf8')) as Crd);

describe.each(crds.map((crd) => [crd.spec.names.kind, crd] as const))('%s', (_, crd) => {
  const version = crd.spec.versions[0];
  if (version === undefined) throw new Error('no version');
  const fields = [...fieldsOf('', version.schema.openAPIV3Schema)];

  it('says of every field what it is', () => {
    // The API server takes no description for metadata.
    const silent = fields.filter(
      ([name, field]) => name !== '.metadata' && (field.description ?? '').trim().length < 8,
    );
    expect(silent.map(([name]) => name)).toEqual([]);
  });

  it('has only defaults that it would accept', () => {
    const withDefault = fields.filter(([, field]) => field.default !== undefined);
    for (const [name, field] of withDefault) {
      const validate = new Ajv({ strict: false, validateFormats: false }).compile(field);
      expect(validate(field.default), `${name} = ${JSON.stringify(field.default)}`).toBe(true);
    }
  });

  it('bounds everything that somebody could make large', () => {
    const unbounded = fields.filter(
      ([name, field]) =>
        !/^\.(apiVersion|kind|metadata)/.test(name) &&
        ((field.type === 'string' &&
          field.enum === undefined &&
          field.maxLength === undefined &&
          !/\{\d+,?\d*\}\$$|\{12\}\$$/.test(field.pattern ?? '') &&
          field.format !== 'date-time') ||
          (field.type === 'array' && field.maxItems === undefined) ||
          (field.additionalProperties !== undefined && field.maxProperties === undefined)),
    );
    expect(unbounded.map(([name]) => name)).toEqual([]);
  });

  it('says how every list is merged', () => {
    const lists = fields.filter(([, field]) => field.type === 'array');
    expect(lists.filter(([, field]) => field['x-kubernetes-list-type'] === undefined)).toEqual([]);
  });

  it('explains every refusal', () => {
    for (const [name, field] of fields)
      for (const { rule, message } of field['x-kubernetes-validations'] ?? [])
        expect(message?.length ?? 0, `${name}: ${rule}`).toBeGreaterThan(20);
  });

  it('takes durations in one strict form', () => {
    for (const [name, field] of fields)
      if (field.format === 'duration') expect(field.pattern, name).toMatch(/^\^\[1-9\]\[0-9\]/);
  });

  it('has columns that show fields it has', () => {
    const known = new Set(fields.map(([name]) => name));
    for (const column of version.additionalPrinterColumns) {
      const field = column.jsonPath.replace(/\[\?.*$/, '');
      if (field !== '.metadata.creationTimestamp')
        expect(known.has(field), `${column.name}: ${column.jsonPath}`).toBe(true);
      const [, condition] = /@\.type=="(\w+)"/.exec(column.jsonPath) ?? [];
      if (condition !== undefined) expect(Object.keys(ConditionType)).toContain(condition);
    }
  });

  it('is served where the code looks for it, and outlives an uninstall', () => {
    const type = Object.values(farshoreTypes).find(({ kind }) => kind === crd.spec.names.kind);
    expect(type).toEqual({
      group: API_GROUP,
      version: API_VERSION,
      kind: crd.spec.names.kind,
      plural: crd.spec.names.plural,
      namespaced: true,
    });
    expect(version.name).toBe(API_VERSION);
    expect(version.subresources.status).toEqual({});
    expect(crd.spec.scope).toBe('Namespaced');
    expect(crd.spec.names.categories).toEqual(['farshore']);
    expect(crd.metadata.name).toBe(`${crd.spec.names.plural}.${API_GROUP}`);
    expect(crd.metadata.annotations['helm.sh/resource-policy']).toBe('keep');
  });
});

it('there is a CRD for every kind', () => {
  expect(crds.map((crd) => crd.spec.names.kind).sort()).toEqual(
    Object.values(farshoreTypes)
      .map(({ kind }) => kind)
      .sort(),
  );
});

it('short names are all different', () => {
  const names = crds.flatMap((crd) => crd.spec.names.shortNames);
  expect(new Set(names).size).toBe(names.length);
});

it('conditions and reasons are spelt as their names, in the form that the API accepts', () => {
  for (const [name, value] of [...Object.entries(ConditionType), ...Object.entries(Reason)]) {
    expect(value).toBe(name);
    expect(value).toMatch(/^[A-Z][A-Za-z0-9]*$/);
  }
});

function* fieldsOf(name: string, schema: Schema): Generator<[string, Schema]> {
  yield [name, schema];
  for (const [key, field] of Object.entries(schema.properties ?? {}))
    yield* fieldsOf(`${name}.${key}`, field);
  if (schema.items !== undefined) yield* fieldsOf(`${name}[]`, schema.items);
  if (schema.additionalProperties !== undefined)
    yield* fieldsOf(`${name}{}`, schema.additionalProperties);
}
