/** What the operator measures, read as Prometheus reads it: fresher than a status, which is written once a minute at most. */
import { MACHINE } from './manifests.ts';

export interface MachineFigures {
  rpoSeconds: number | undefined;
  recoveryPointAgeSeconds: number | undefined;
  /** 0 to 1. */
  initialReplication: number | undefined;
}

/** Undefined when the operator does not answer. */
export async function machineFigures(port: number): Promise<MachineFigures | undefined> {
  try {
    const response = await fetch(`http://127.0.0.1:${port}/metrics`);
    const text = await response.text();
    const value = (name: string) => {
      const line = text
        .split('\n')
        .find((one) => one.startsWith(`${name}{`) && one.includes(`"${MACHINE}"`));
      return line === undefined ? undefined : Number(line.slice(line.lastIndexOf(' ')));
    };
    return {
      rpoSeconds: value('farshore_rpo_seconds'),
      recoveryPointAgeSeconds: value('farshore_recovery_point_age_seconds'),
      initialReplication: value('farshore_initial_replication_ratio'),
    };
  } catch {
    return undefined;
  }
}
