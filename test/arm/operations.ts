/** Long-running operations: the work begins after a delay, and clients ask for its state meanwhile. */
import { randomUUID } from 'node:crypto';
import { ArmFailure } from './failure.ts';

export interface Operation {
  id: string;
  location: string;
  method: string;
  status: 'InProgress' | 'Succeeded' | 'Failed';
  startTime: string;
  endTime?: string;
  error?: { code: string; message: string };
  /** What a POST gives in the end. */
  output?: unknown;
}

export class Operations {
  readonly #operations = new Map<string, Operation>();
  readonly #running = new Set<Promise<void>>();
  #closed = false;

  start(options: {
    location: string;
    method: string;
    delayMs: number;
    work: () => Promise<unknown>;
    /** Told before the operation shows as failed. */
    onFailure?: (error: ArmFailure) => void;
  }): Operation {
    const operation: Operation = {
      id: randomUUID(),
      location: options.location,
      method: options.method,
      status: 'InProgress',
      startTime: new Date().toISOString(),
    };
    this.#operations.set(operation.id, operation);
    const running = this.#run(operation, options).finally(() => this.#running.delete(running));
    this.#running.add(running);
    return operation;
  }

  get(id: string): Operation | undefined {
    return this.#operations.get(id);
  }

  /** Lets what is running end; nothing that still waits for its delay begins. */
  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all(this.#running);
  }

  async #run(operation: Operation, options: Parameters<Operations['start']>[0]): Promise<void> {
    for (const due = Date.now() + options.delayMs; Date.now() < due && !this.#closed; )
      await new Promise((resolve) => setTimeout(resolve, Math.min(20, due - Date.now())));
    if (this.#closed) return;
    try {
      operation.output = await options.work();
      operation.status = 'Succeeded';
    } catch (error) {
      const failure =
        error instanceof ArmFailure
          ? error
          : new ArmFailure(500, 'InternalServerError', String(error));
      options.onFailure?.(failure);
      operation.error = { code: failure.code, message: failure.message };
      operation.status = 'Failed';
    }
    operation.endTime = new Date().toISOString();
  }
}
