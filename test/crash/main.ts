/** `npm run crashes -- [--operations 2] [--second-deaths 1] [--mutant NAME]`: every crash, as JSON; exit code 1 when one is not survived. */
import { parseArgs } from 'node:util';
import { exploreCrashes } from './campaign.ts';

const { values } = parseArgs({
  options: {
    operations: { type: 'string', default: '2' },
    'second-deaths': { type: 'string', default: '1' },
    breaches: { type: 'string', default: '1' },
    mutant: { type: 'string' },
  },
});
const result = await exploreCrashes({
  operations: Number(values.operations),
  secondDeathsUpTo: Number(values['second-deaths']),
  breaches: Number(values.breaches),
  ...(values.mutant === undefined ? {} : { mutant: values.mutant }),
});
process.stdout.write(`${JSON.stringify(result, undefined, 1)}\n`);
process.exitCode = result.breaches.length === 0 ? 0 : 1;
