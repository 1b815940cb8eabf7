/** Freezes the filesystems of a disk as the agent does, says so, and hangs: frozenProcess.ts DEVICE DEADLINE_MS */
import { LinuxFreezer } from '../../../platform/linux/freezer.ts';
import { systemClock } from '../../../platform/node/clock.ts';

const [device = '', deadlineMs = ''] = process.argv.slice(2);
const freezer = new LinuxFreezer({ clock: systemClock });
const plan = await freezer.plan([device]);
await freezer.prepare(plan);
await freezer.freeze(plan, { deadlineMs: Number(deadlineMs) });
process.stdout.write('frozen\n');
setInterval(() => undefined, 1000);
