/** What the CRDs say of themselves: their rules, and what a status may hold. */
import { globSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { parse } from 'yaml';
import type { ResourceType } from '../../../platform/kubernetes.ts';
import type { Spec } from './specs.ts';

const CRDS = path.resolve(import.meta.dirname, '../../../crds');

/** The words of every CEL rule. */
export function ruleMessages(): string[] {
  return globSync('*.yaml', { cwd: CRDS }).flatMap((file) =>
    messagesOf(parse(readFileSync(path.join(CRDS, file), 'utf8'))),
  );
}

function messagesOf(value: Spec): string[] {
  if (typeof value !== 'object' || value === null) return [];
  const rules: { message: string }[] = value['x-kubernetes-validations'] ?? [];
  return [...rules.map((rule) => rule.message), ...Object.values(value).flatMap(messagesOf)];
}

/** A value for every field of a status, made from the CRD's own schema. */
export function fullStatus(type: ResourceType): unknown {
  const crd = parse(readFileSync(path.join(CRDS, `${type.plural}.yaml`), 'utf8'));
  return sample(crd.spec.versions[0].schema.openAPIV3Schema.properties.status);
}

function sample(schema: Spec): unknown {
  if (schema.enum !== undefined) return schema.enum[0];
  if (schema.type === 'object')
    return Object.fromEntries(
      Object.entries(schema.properties ?? {}).map(([key, field]) => [key, sample(field)]),
    );
  if (schema.type === 'array') return [sample(schema.items)];
  if (schema.type === 'integer') return 7;
  if (schema.type === 'boolean') return false;
  if (schema.format === 'date-time') return '2026-01-01T00:00:00Z';
  return (schema.pattern ?? '').includes('[1-9]') ? '7' : 'Word';
}

/** As a controller would write it into a status. */
export function condition(type: string, status: string) {
  return {
    type,
    status,
    reason: 'Tested',
    message: '',
    lastTransitionTime: '2026-01-01T00:00:00Z',
  };
}
