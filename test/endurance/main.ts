/** npm run endurance: see docs/ENDURANCE.md. */
import path from 'node:path';
import { runInForeground } from '../../hack/demonstration/foreground.ts';

runInForeground({
  name: 'endurance',
  program: path.join(import.meta.dirname, 'endurance.ts'),
  args: process.argv.slice(2),
});
