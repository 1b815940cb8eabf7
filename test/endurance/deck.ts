import type { Chance } from '../sim/chance.ts';
import { KINDS } from './faults.ts';
import { TAKEOVER_KINDS } from './takeover.ts';

/** Names of all kinds of faults that a run can strike. */
export const FAULTS: readonly string[] = [...Object.keys(KINDS), ...TAKEOVER_KINDS];

/** Every kind once in a random order, and again: a short run has as many kinds as it has room for. */
export class Deck {
  readonly #kinds: readonly string[];
  readonly #chance: Chance;
  #cards: string[] = [];

  constructor(kinds: readonly string[], chance: Chance) {
    this.#kinds = kinds;
    this.#chance = chance;
  }

  next(): string {
    if (this.#cards.length === 0) {
      const left = [...this.#kinds];
      while (left.length > 0) this.#cards.push(...left.splice(this.#chance.below(left.length), 1));
    }
    return this.#cards.pop() ?? '';
  }
}
