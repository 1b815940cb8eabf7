/**
 * Generates `crds/types/*.ts` from `crds/*.yaml`. `--check` writes nothing and fails when what is there is not what would be
 * written. The types say what the API server returns: a field with a default is always there.
 */
import { globSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { JSONSchema4 } from 'json-schema';
import { compile } from 'json-schema-to-typescript';
import { parse } from 'yaml';

const root = path.resolve(import.meta.dirname, '..');
const check = process.argv.includes('--check');
let drift = 0;

mkdirSync(path.join(root, 'crds/types'), { recursive: true });
for (const file of globSync('crds/*.yaml', { cwd: root }).sort()) {
  const target = path.join('crds/types', `${path.basename(file, '.yaml')}.ts`);
  const generated = await typesOf(file);
  if (!check) writeFileSync(path.join(root, target), generated);
  else if (contentOf(target) !== generated) {
    console.error(`${target} is not what ${file} says; run \`npm run crds\`.`);
    drift++;
  }
}
if (check) console.log(drift === 0 ? 'crds: types are current' : `crds: ${drift} files drifted`);
process.exitCode = drift === 0 ? 0 : 1;

function contentOf(file: string): string | undefined {
  try {
    return readFileSync(path.join(root, file), 'utf8');
  } catch {
    return undefined;
  }
}

async function typesOf(file: string): Promise<string> {
  const crd = parse(readFileSync(path.join(root, file), 'utf8'));
  const { kind } = crd.spec.names;
  const schema: JSONSchema4 = crd.spec.versions[0].schema.openAPIV3Schema;
  const halves: string[] = [];
  for (const half of ['spec', 'status']) {
    const name = kind + capitalised(half);
    const source = await compile(typed(schema.properties?.[half] ?? {}, name), name, {
      additionalProperties: false,
      bannerComment: '',
      ignoreMinAndMaxItems: true,
      style: { singleQuote: true, printWidth: 100 },
    });
    halves.push(source);
  }
  return `/** Generated from ${file} by hack/generate-crd-types.ts; do not edit. */
import type { Condition, ObjectMeta } from '../object.ts';

${halves.join('\n')}
/** ${String(schema.description).trim()} */
export interface ${kind} {
  apiVersion: string;
  kind: string;
  metadata: ObjectMeta;
  spec: ${kind}Spec;
  status?: ${kind}Status;
}
`;
}

/** The schema with a name for every object in it, and with fields that have a default required. */
function typed(schema: JSONSchema4, name: string): JSONSchema4 {
  if (name.endsWith('ConditionsItem')) return { tsType: 'Condition' };
  const { description, enum: values, items, properties, additionalProperties } = schema;
  const described = description === undefined ? {} : { description };
  if (schema.type === 'array')
    return { ...described, type: 'array', items: typed(items as JSONSchema4, `${name}Item`) };
  if (schema.type === 'object' && properties !== undefined)
    return {
      ...described,
      type: 'object',
      title: name,
      required: Object.keys(properties).filter(
        (key) =>
          (Array.isArray(schema.required) && schema.required.includes(key)) ||
          properties[key]?.default !== undefined,
      ),
      properties: Object.fromEntries(
        Object.entries(properties).map(([key, value]) => [
          key,
          typed(value, name + capitalised(key)),
        ]),
      ),
    };
  if (schema.type === 'object' && typeof additionalProperties === 'object')
    return {
      ...described,
      type: 'object',
      additionalProperties: typed(additionalProperties, name),
    };
  return { ...described, type: schema.type, ...(values === undefined ? {} : { enum: values }) };
}

function capitalised(word: string): string {
  return word.charAt(0).toUpperCase() + word.slice(1);
}
