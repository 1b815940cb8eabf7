/** The foreground of hack/demo. */
import path from 'node:path';
import { runInForeground } from './foreground.ts';

runInForeground({
  name: 'hack/demo',
  program: path.join(import.meta.dirname, 'demonstration.ts'),
  args: process.argv.slice(2),
});
