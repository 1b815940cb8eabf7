/** Where a command speaks. */
export interface Terminal {
  /** Standard output: what was asked for, fit for a pipe. */
  answer(text: string): void;
  /** Standard error: everything else. */
  tell(text: string): void;
}
