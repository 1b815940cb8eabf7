import type { StepRun } from '../context.ts';
import { claimMachine } from './catalog.ts';

/** Makes Azure the machine's home: what the source still holds is history from here on. */
export const commit: StepRun = async ({ deps, entry }) => {
  await claimMachine(deps, entry.document);
  return `Machine ${entry.document.request.machineName} is at home in Azure.`;
};
