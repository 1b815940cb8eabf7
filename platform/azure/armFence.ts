/**
 * Keeps a process that was succeeded from changing anything. One that was suspended, in a call or between two, goes on where it was: its
 * successor may have finished and removed everything by then, and what it made now nobody would know of. So it is asked whether it still
 * leads right before each request that changes something, behind logging in, looking first and waiting for another try.
 */
import type { Pipeline, PipelinePolicy } from '@azure/core-rest-pipeline';
import { ComputeError } from '../computeErrors.ts';

const READING = new Set(['GET', 'HEAD']);

export function useFence(pipeline: Pipeline, mayChange: () => boolean): void {
  pipeline.addPolicy(armFencePolicy(mayChange), { afterPhase: 'Sign' });
}

export function armFencePolicy(mayChange: () => boolean): PipelinePolicy {
  return {
    name: 'farshoreFencePolicy',
    async sendRequest(request, next) {
      if (READING.has(request.method) || mayChange()) return await next(request);
      throw new ComputeError(
        'NotLeading',
        `Azure was not asked to ${request.method} ${new URL(request.url).pathname}: this operator's lease has run out, and another may lead. It goes on from the ledger.`,
      );
    },
  };
}
