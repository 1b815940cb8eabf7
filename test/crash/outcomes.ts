import type { Choices } from '../fakes/inode.ts';

/**
 * Every way in which questions can be answered, one after the other: the answers of one run are those of the run before with the last one
 * raised. Which questions are asked may depend on the answers before.
 */
export class Outcomes implements Choices {
  #path: { answer: number; options: number }[] = [];
  #at = 0;

  choose(options: number): number {
    const known = this.#path[this.#at];
    if (known !== undefined && known.options !== options)
      throw new Error(`question ${this.#at} has ${options} answers, and had ${known.options}`);
    if (known === undefined) this.#path.push({ answer: 0, options });
    this.#at += 1;
    return known?.answer ?? 0;
  }

  /** Goes on to the next answers; false when there are no others. */
  next(): boolean {
    this.#path.length = this.#at;
    this.#at = 0;
    for (let last = this.#path.at(-1); last !== undefined; last = this.#path.at(-1)) {
      last.answer += 1;
      if (last.answer < last.options) return true;
      this.#path.pop();
    }
    return false;
  }

  toString(): string {
    return this.#path
      .slice(0, this.#at)
      .map(({ answer }) => answer)
      .join('');
  }
}
