/**
 * What must be undone at the end, last made first, whatever ends the program. Undoing goes on past a failure and tells of it.
 */
export class Undo {
  readonly #steps: { what: string; run: () => Promise<void> | void }[] = [];
  #running: Promise<string[]> | undefined;

  add(what: string, run: () => Promise<void> | void): void {
    this.#steps.push({ what, run });
  }

  /** Undoes everything once; later calls wait for the first. Returns what could not be undone. */
  async all(): Promise<string[]> {
    this.#running ??= this.#undo();
    return await this.#running;
  }

  async #undo(): Promise<string[]> {
    const failures: string[] = [];
    for (let step = this.#steps.pop(); step !== undefined; step = this.#steps.pop())
      try {
        await step.run();
      } catch (error) {
        failures.push(`${step.what}: ${error instanceof Error ? error.message : String(error)}`);
      }
    return failures;
  }
}
