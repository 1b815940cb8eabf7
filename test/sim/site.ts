/** What every simulated process is made of, and what a run keeps of it. */
import type { Logger } from '../../platform/ports.ts';
import type { Chance } from './chance.ts';
import type { SimNetwork } from './network.ts';
import type { Oracle } from './oracle.ts';
import type { SimTime } from './time.ts';
import type { SimVault } from './vault.ts';

export interface Site {
  time: SimTime;
  chance: Chance;
  network: SimNetwork;
  vault: SimVault;
  oracle: Oracle;
  /** Log lines of all processes, when somebody looks at one seed. */
  logger: (process: string) => Logger;
  counted: (kind: string) => void;
}

/** Joins the trace, so that a run that logs otherwise shows; keeps nothing. */
export function traceLogger(
  time: SimTime,
  name: string,
  print: ((line: string) => void) | undefined,
): Logger {
  const write = (level: string) => (fields: object, message: string) => {
    time.note(`${name} ${level} ${message}`);
    print?.(`${time.nowMs.toFixed(1).padStart(10)} ${name} ${level} ${message} ${textOf(fields)}`);
  };
  const logger: Logger = {
    debug: write('debug'),
    info: write('info'),
    warn: write('warn'),
    error: write('error'),
    child: () => logger,
  };
  return logger;
}

function textOf(fields: object): string {
  const seen = JSON.stringify(fields, (_key, value: unknown) => {
    if (typeof value === 'bigint') return value.toString();
    if (value instanceof Error) return `${value.message}`;
    return value;
  });
  return seen === '{}' ? '' : seen.slice(0, 400);
}
