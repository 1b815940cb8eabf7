/** The module that worker threads run to seal and open chunks (platform/node/workerPool.ts calls `handle`). */
import { type CodecJob, type CodecResult, ownBuffer, runCodecJob } from './segmentCodec.ts';

export function handle(job: CodecJob): { result: CodecResult; transfer: ArrayBuffer[] } {
  const result = runCodecJob(job);
  if (!('bytes' in result)) return { result, transfer: [] };
  const bytes = ownBuffer(result.bytes);
  return { result: { bytes }, transfer: [bytes.buffer] };
}
