/** Freezes the filesystems of disks as the agent does, says so, and hangs: frozenProcess.ts DEADLINE_MS DEVICE… */
import { LinuxFreezer } from '../../../platform/linux/freezer.ts';
import { systemClock } from '../../../platform/node/clock.ts';

const [deadlineMs = '', ...devices] = process.argv.slice(2);
const freezer = new LinuxFreezer({ clock: systemClock });
const plan = await freezer.plan(devices);
await freezer.prepare(plan);
await freezer.freeze(plan, { deadlineMs: Number(deadlineMs) });
process.stdout.write('frozen\n');
setInterval(() => undefined, 1000);
