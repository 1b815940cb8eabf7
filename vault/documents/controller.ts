import { z } from 'zod';
import { hex, timeMs } from './fields.ts';

/** control/controller.json: which installation is in control. Every mutation of Azure first re-reads it. */
export const controllerDocumentSchema = z.object({
  controllerEpoch: z.number().int().positive(),
  installationId: hex(16),
  holder: z.string(),
  since: timeMs,
});
export type ControllerDocument = z.infer<typeof controllerDocumentSchema>;
