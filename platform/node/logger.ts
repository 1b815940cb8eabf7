import { pino } from 'pino';
import type { Logger } from '../ports.ts';

export type LogLevel = 'debug' | 'info' | 'warn' | 'error';

/**
 * JSON lines on stderr (stdout is a command's answer). Fields named like secrets are left out even if someone passes them.
 */
export function createLogger(options: { name: string; level?: LogLevel }): Logger {
  return pino(
    {
      name: options.name,
      level: options.level ?? 'info',
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      redact: {
        paths: [
          'connectionString',
          'passphrase',
          'privateKey',
          'token',
          'dataKey',
          '*.connectionString',
          '*.passphrase',
          '*.privateKey',
          '*.token',
          '*.dataKey',
        ],
        censor: '[secret]',
      },
      serializers: { error: pino.stdSerializers.errWithCause },
    },
    pino.destination({ dest: 2, sync: true }),
  );
}
