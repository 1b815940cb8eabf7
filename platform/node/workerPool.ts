/**
 * Worker threads that run one function of a module. The module exports `handle(job): { result, transfer }`, synchronous; buffers
 * in `transfer` are moved. Codec work runs here because it would block the event loop, and because Node's own thread pool is
 * slower at it and shared with files (design §7).
 */
import { Worker } from 'node:worker_threads';
import { FarshoreError } from '../errors.ts';

interface Waiting {
  job: unknown;
  transfer: readonly ArrayBuffer[];
  resolve: (result: unknown) => void;
  reject: (error: Error) => void;
}

/** Source of each worker: adapters may know worker_threads, the module need not. */
const BOOT = `
import { parentPort, workerData } from 'node:worker_threads';
const { handle } = await import(workerData.module);
parentPort.on('message', (job) => {
  try {
    const { result, transfer } = handle(job);
    parentPort.postMessage({ result }, transfer);
  } catch (error) {
    parentPort.postMessage({ error: String(error?.stack ?? error) });
  }
});
`;

export class WorkerPool {
  readonly size: number;
  readonly #module: URL;
  readonly #idle: Worker[] = [];
  readonly #all = new Set<Worker>();
  readonly #running = new Map<Worker, Waiting>();
  readonly #queue: Waiting[] = [];
  #closed = false;

  /** `size` threads at most; each starts when there is work for it. */
  constructor(options: { module: URL; size: number }) {
    this.#module = options.module;
    this.size = options.size;
  }

  /** Rejects with what `handle` threw, or with WorkerDied when the thread ended: the job may be run again. */
  run(job: unknown, transfer: readonly ArrayBuffer[] = []): Promise<unknown> {
    return new Promise((resolve, reject) => {
      if (this.#closed) {
        reject(new FarshoreError('WorkerDied', 'The worker pool is closed.'));
        return;
      }
      this.#queue.push({ job, transfer, resolve, reject });
      this.#dispatch();
    });
  }

  /** Ends the threads; jobs not done are rejected. */
  async close(): Promise<void> {
    this.#closed = true;
    const closed = new FarshoreError('WorkerDied', 'The worker pool was closed.');
    for (const waiting of this.#queue.splice(0)) waiting.reject(closed);
    for (const waiting of this.#running.values()) waiting.reject(closed);
    this.#running.clear();
    await Promise.all([...this.#all].map((worker) => worker.terminate()));
  }

  #dispatch(): void {
    while (this.#queue.length > 0) {
      const worker =
        this.#idle.pop() ?? (this.#all.size < this.size ? this.#startWorker() : undefined);
      if (worker === undefined) return;
      const waiting = this.#queue.shift() as Waiting;
      this.#running.set(worker, waiting);
      worker.ref();
      try {
        worker.postMessage(waiting.job, [...waiting.transfer]);
      } catch (error) {
        this.#settle(worker)?.reject(error as Error);
      }
    }
  }

  #startWorker(): Worker {
    const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(BOOT)}`), {
      workerData: { module: this.#module.href },
    });
    worker.unref();
    this.#all.add(worker);
    worker.on('message', (answer: { result?: unknown; error?: string }) => {
      const waiting = this.#settle(worker);
      if (answer.error === undefined) waiting?.resolve(answer.result);
      else waiting?.reject(new FarshoreError('WorkerFailed', answer.error));
      this.#dispatch();
    });
    const died = (reason: string) => {
      if (!this.#all.delete(worker)) return;
      const waiting = this.#running.get(worker);
      this.#running.delete(worker);
      const index = this.#idle.indexOf(worker);
      if (index >= 0) this.#idle.splice(index, 1);
      waiting?.reject(new FarshoreError('WorkerDied', `A worker thread ended: ${reason}.`));
      if (!this.#closed) this.#dispatch();
    };
    worker.on('error', (error) => died(String(error)));
    worker.on('exit', (code) => died(`exit code ${code}`));
    return worker;
  }

  /** The worker's job is over; an idle worker does not keep the process alive. */
  #settle(worker: Worker): Waiting | undefined {
    const waiting = this.#running.get(worker);
    this.#running.delete(worker);
    this.#idle.push(worker);
    worker.unref();
    return waiting;
  }
}
