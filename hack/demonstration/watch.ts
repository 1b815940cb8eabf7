/** Waiting for what a resource's status says, and showing it meanwhile. */
import type { Failover, ProtectedVM } from '../../crds/index.ts';
import type { Cloud } from './cloud.ts';
import { NAMESPACE } from './manifests.ts';
import { type Running, tail } from './process.ts';

const LOOK_EVERY_MS = 1_000;

export interface Wait {
  what: string;
  timeoutMs: number;
  /** Whose death makes waiting useless. */
  needs: readonly Running[];
  signal: AbortSignal;
}

/** Polls until `look` gives something. Rejects when time is up or a process that it depends on died, with its last words. */
export async function waitFor<T>(wait: Wait, look: () => T | undefined): Promise<T> {
  const deadline = Date.now() + wait.timeoutMs;
  for (;;) {
    wait.signal.throwIfAborted();
    const found = look();
    if (found !== undefined) return found;
    for (const running of wait.needs)
      if (!running.alive())
        throw new Error(
          `the ${running.name} ended while waiting for ${wait.what}:\n${tail(running)}`,
        );
    if (Date.now() > deadline) {
      const last = wait.needs.map((running) => `--- ${running.name}\n${tail(running)}`).join('\n');
      throw new Error(`${wait.what}: not within ${wait.timeoutMs / 1000} s\n${last}`);
    }
    await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
  }
}

export function getObject<T>(cloud: Cloud, kind: string, name: string): T | undefined {
  try {
    return JSON.parse(
      cloud.kubernetes.kubectl(['get', kind, name, '-n', NAMESPACE, '-o', 'json']),
    ) as T;
  } catch {
    return undefined;
  }
}

type Conditioned = {
  status?: { conditions?: { type: string; status: string; message?: string }[] };
};

export function isTrue(object: Conditioned | undefined, type: string): boolean {
  return (
    object?.status?.conditions?.some((one) => one.type === type && one.status === 'True') ?? false
  );
}

/** One line for the machine as it is now. */
export function machineLine(machine: ProtectedVM): string {
  const {
    phase,
    initialReplication: initial,
    barriers,
    lastBarrierTime,
    recoveryPoints,
  } = machine.status ?? {};
  const parts = [phase ?? 'Pending'];
  if (initial !== undefined && (initial.percent ?? 100) < 100)
    parts.push(
      `initial replication ${initial.percent ?? 0}% (${mebibytes(initial.bytesDone)} of ${mebibytes(initial.bytesTotal)})`,
    );
  if (barriers !== undefined)
    parts.push(
      `${barriers.count ?? 0} barriers, longest freeze ${Math.round(barriers.maxFreezeMs ?? 0)} ms`,
    );
  if (recoveryPoints?.count !== undefined) parts.push(`${recoveryPoints.count} recovery points`);
  if (lastBarrierTime !== undefined)
    parts.push(
      `RPO ${Math.max(0, Math.round((Date.now() - Date.parse(lastBarrierTime)) / 1000))} s`,
    );
  return parts.join(' · ');
}

/** One line for each step that is new or changed. */
export class StepLines {
  readonly #shown = new Map<string, string>();

  news(failover: Failover): string[] {
    const lines: string[] = [];
    for (const step of failover.status?.steps ?? []) {
      if (step.state === 'Pending' || step.state === 'Skipped') continue;
      const percent = step.progress?.percent;
      const progress = step.state === 'Running' && percent !== undefined ? ` ${percent}%` : '';
      const line = `${step.name.padEnd(13)} ${step.state}${progress}${step.message ? `: ${step.message}` : ''}`;
      if (this.#shown.get(step.name) !== line) lines.push(line);
      this.#shown.set(step.name, line);
    }
    return lines;
  }
}

function mebibytes(bytes: number | undefined): string {
  return `${Math.round((bytes ?? 0) / (1 << 20))} MiB`;
}
