/** Waiting for what a resource's status says, and showing it meanwhile. */
import type { Failover, ProtectedVM } from '../../crds/index.ts';
import type { Cloud } from './cloud.ts';
import { NAMESPACE } from './manifests.ts';
import type { MachineFigures } from './metrics.ts';
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
export async function waitFor<T>(
  wait: Wait,
  look: () => Promise<T | undefined> | T | undefined,
): Promise<T> {
  const deadline = Date.now() + wait.timeoutMs;
  for (;;) {
    wait.signal.throwIfAborted();
    const found = await look();
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
export function machineLine(machine: ProtectedVM, figures: MachineFigures | undefined): string {
  const { phase, initialReplication: initial, barriers } = machine.status ?? {};
  const ready = machine.status?.conditions?.find((one) => one.type === 'Ready');
  const why = phase === 'Degraded' && ready?.message !== undefined ? `: ${ready.message}` : '';
  const parts = [`${phase ?? 'Pending'}${why}`];
  if (initial !== undefined && (initial.percent ?? 100) < 100)
    parts.push(
      `initial replication ${initial.percent ?? 0}% (${mebibytes(initial.bytesDone)} of ${mebibytes(initial.bytesTotal)})`,
    );
  const rpo = figures?.rpoSeconds;
  const age = figures?.recoveryPointAgeSeconds;
  if (rpo !== undefined) parts.push(`RPO ${Math.round(rpo)} s`);
  if (age !== undefined) parts.push(`newest recovery point ${Math.round(age)} s old`);
  if (barriers !== undefined && (barriers.maxFreezeMs ?? 0) > 0)
    parts.push(`longest freeze ${Math.round(barriers.maxFreezeMs ?? 0)} ms`);
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
