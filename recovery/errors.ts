import { FarshoreError } from '../platform/errors.ts';

/**
 * A failover can't go on, and trying again would not help: it ends as Failed and what it made in Azure is removed. Every other error
 * is retried with backoff, its message shown in the step.
 */
export class FailoverFatal extends FarshoreError {}
