import fc from 'fast-check';
import type { z } from 'zod';

/** The parts of a zod schema's definition that matter here. */
interface Definition {
  type: string;
  shape?: Record<string, z.ZodType>;
  innerType?: z.ZodType;
  element?: z.ZodType;
  items?: z.ZodType[];
  options?: z.ZodType[];
  in?: z.ZodType;
  keyType?: z.ZodType;
  valueType?: z.ZodType;
  entries?: Record<string, string>;
  values?: unknown[];
}

/** Any value that a schema accepts, as it is in memory. Throws RangeError for a kind of schema that it does not know. */
export function valuesOf(schema: z.ZodType): fc.Arbitrary<unknown> {
  const definition = schema._zod.def as unknown as Definition;
  switch (definition.type) {
    case 'object': {
      const shape = Object.entries(definition.shape ?? {});
      const required = shape.filter(([, inner]) => !isOptional(inner)).map(([key]) => key);
      const fields = shape.map(([key, inner]) => [key, valuesOf(inner)] as const);
      return fc.record(Object.fromEntries(fields), {
        requiredKeys: required,
        noNullPrototype: true,
      });
    }
    case 'optional':
    case 'default':
    case 'prefault':
      return valuesOf(definition.innerType as z.ZodType);
    case 'nullable':
      return fc.option(valuesOf(definition.innerType as z.ZodType), { nil: null });
    case 'array':
      return arraysOf(schema, valuesOf(definition.element as z.ZodType));
    case 'tuple':
      return fc.tuple(...(definition.items ?? []).map(valuesOf));
    case 'union':
      return fc.oneof(...(definition.options ?? []).map(valuesOf));
    case 'record':
      return fc.dictionary(
        valuesOf(definition.keyType as z.ZodType) as fc.Arbitrary<string>,
        valuesOf(definition.valueType as z.ZodType),
        { maxKeys: 3, noNullPrototype: true },
      );
    case 'enum':
      return fc.constantFrom(...Object.values(definition.entries ?? {}));
    case 'literal':
      return fc.constantFrom(...(definition.values ?? []));
    case 'unknown':
      return fc.jsonValue({ maxDepth: 2 });
    case 'boolean':
      return fc.boolean();
    case 'pipe':
      // The one codec there is: decimal text for a position.
      return fc.bigInt({ min: 0n, max: 9_223_372_036_854_775_807n });
    case 'number':
      return numbersOf(schema);
    case 'string':
      return textsOf(schema);
    default:
      throw new RangeError(`no values are known of a schema of type ${definition.type}`);
  }
}

/** One of them; the same for the same seed. */
export function sampleOf(schema: z.ZodType, seed: number): unknown {
  return fc.sample(valuesOf(schema), { seed, numRuns: 1 })[0];
}

function isOptional(schema: z.ZodType): boolean {
  return ['optional', 'default', 'prefault'].includes(schema._zod.def.type);
}

interface Limits {
  minimum: number | undefined;
  maximum: number | undefined;
  isInteger: boolean;
  pattern: RegExp | undefined;
  format: string | undefined;
}

/** What a schema asks of a number, a text or an array beyond its type. */
function limitsOf(schema: z.ZodType): Limits {
  const definition = schema._zod.def as { format?: string; checks?: { _zod: { def: object } }[] };
  const limits: Limits = {
    ...{ minimum: undefined, maximum: undefined, isInteger: false, pattern: undefined },
    format: definition.format,
  };
  for (const { _zod } of definition.checks ?? []) {
    const check = _zod.def as Record<string, unknown>;
    // Whatever is exclusive is an integer here.
    const bound = Number(check.value) + (check.inclusive === false ? 1 : 0);
    if (check.check === 'number_format') limits.isInteger = true;
    else if (check.check === 'greater_than') limits.minimum = bound;
    else if (check.check === 'less_than') limits.maximum = Number(check.value);
    else if (check.check === 'min_length') limits.minimum = Number(check.minimum);
    else if (check.check === 'max_length') limits.maximum = Number(check.maximum);
    else if (check.format === 'regex') limits.pattern = check.pattern as RegExp;
    else throw new RangeError(`no values are known under the check ${JSON.stringify(check)}`);
  }
  return limits;
}

function arraysOf(schema: z.ZodType, element: fc.Arbitrary<unknown>): fc.Arbitrary<unknown> {
  const { minimum = 0, maximum = 4 } = limitsOf(schema);
  return fc.array(element, {
    minLength: minimum,
    maxLength: Math.max(minimum, Math.min(maximum, 4)),
  });
}

function numbersOf(schema: z.ZodType): fc.Arbitrary<number> {
  const { minimum: min, maximum: max, isInteger } = limitsOf(schema);
  if (isInteger)
    return fc.integer({ min: min ?? Number.MIN_SAFE_INTEGER, max: max ?? Number.MAX_SAFE_INTEGER });
  // JSON knows no -0.
  return fc.double({ min: min ?? -1e9, max: max ?? 1e9, noNaN: true }).map((number) => number + 0);
}

function textsOf(schema: z.ZodType): fc.Arbitrary<string> {
  const { minimum = 0, maximum = 40, pattern, format } = limitsOf(schema);
  if (format === 'url') return fc.webUrl();
  if (format === 'base64url')
    return fc
      .uint8Array({ maxLength: 40 })
      .map((bytes) => Buffer.from(bytes).toString('base64url'));
  if (pattern !== undefined) return fc.stringMatching(pattern);
  const maxLength = Math.min(maximum, minimum + 40);
  return fc.string({ minLength: minimum, maxLength });
}
