import { KubeError, type KubeObject } from '../../platform/kubernetes.ts';

/** Which objects a list or a watch is of. */
export interface KubeSelection {
  namespace?: string;
  labelSelector?: string;
  fieldSelector?: string;
}

type Requirement = (labels: Record<string, string>) => boolean;

/** What tells whether an object is selected. Throws `Invalid` for a selector that the server would not understand. */
export function selected(selection: KubeSelection): (object: KubeObject) => boolean {
  const { namespace, labelSelector = '', fieldSelector = '' } = selection;
  const byLabels = terms(labelSelector).map(requirement);
  const byFields = terms(fieldSelector).map(fieldRequirement);
  return ({ metadata }) =>
    (namespace === undefined || metadata.namespace === namespace) &&
    byLabels.every((holds) => holds(metadata.labels ?? {})) &&
    byFields.every((holds) =>
      holds({ 'metadata.name': metadata.name, 'metadata.namespace': metadata.namespace ?? '' }),
    );
}

/** Commas within parentheses divide values, not terms. */
function terms(selector: string): string[] {
  return selector
    .split(/,(?![^(]*\))/)
    .map((term) => term.trim())
    .filter((term) => term !== '');
}

function requirement(term: string): Requirement {
  const listed = /^(\S+) (in|notin) \(([^)]*)\)$/.exec(term);
  if (listed !== null) {
    const [, key = '', verb, list = ''] = listed;
    const values = list.split(',').map((value) => value.trim());
    return (labels) => values.includes(labels[key] ?? '\0') === (verb === 'in');
  }
  if (/^!?[^\s=!(),]+$/.test(term))
    return (labels) => term.replace('!', '') in labels !== term.startsWith('!');
  return comparison(term);
}

function fieldRequirement(term: string): Requirement {
  if (!/^metadata\.(name|namespace)[=!]/.test(term))
    throw new KubeError('Invalid', `the fake knows no field of ${term}`, { status: 400 });
  return comparison(term);
}

function comparison(term: string): Requirement {
  const [, key = '', sign, value] = /^([^\s=!(),]+)\s*(==?|!=)\s*([^\s=!(),]*)$/.exec(term) ?? [];
  if (sign === undefined)
    throw new KubeError('Invalid', `unable to parse ${term}`, { status: 400 });
  return (labels) => (labels[key] === value) === (sign !== '!=');
}
