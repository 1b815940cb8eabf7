/** A planted bug: a small change to product behaviour, which the simulation must find. */
export interface Mutant {
  name: string;
  /** Of the product, from the repository's root. */
  file: string;
  /** Exactly once in the file. */
  find: string;
  replace: string;
  /** Of docs/INVARIANTS.md, or what else the run would breach. */
  breaks: string;
}
