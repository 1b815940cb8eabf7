import type { ServerOptions, Site, SourceDisk } from '../fixtures/site.ts';
import type { AgentProcess } from '../servers/agentProcess.ts';
import type { ProcessServerProcess } from '../servers/processServerProcess.ts';

export interface Replicating {
  server: ProcessServerProcess;
  agent: AgentProcess;
  /** When its initial replication began, wall clock. */
  begunMs: number;
}

/** A site's process server and agent, with these disks assigned. Resolves once their initial replication has begun. */
export async function startReplicating(
  site: Site,
  options: {
    disks: readonly SourceDisk[];
    /** Between barriers; 1 unless given. */
    barrierSeconds?: number;
    server?: ServerOptions;
    /** With CPU profiles of both processes. */
    profileDirectory?: string | undefined;
    /** Where agents connect instead of the process server's own port. */
    through?: (serverPort: number) => Promise<number>;
  },
): Promise<Replicating> {
  const { disks, barrierSeconds = 1, profileDirectory, through } = options;
  const nodeOptions = profileOptions(profileDirectory);
  const server = await site.startServer({ ...options.server, nodeOptions });
  const policy = { crashConsistentSeconds: barrierSeconds, appConsistentSeconds: 0 };
  await site.assign(disks, { policy });
  const ports = through === undefined ? [] : [await through(await server.port())];
  const agent = await site.startAgent({ nodeOptions, ...(ports.length === 0 ? {} : { ports }) });
  const begunMs = await resyncBegun(agent);
  await site.closeEnrolment();
  return { server, agent, begunMs };
}

/** When an agent's resync began, wall clock. */
export async function resyncBegun(agent: AgentProcess): Promise<number> {
  return Date.parse(String((await agent.logged('A resync begins')).time));
}

export function profileOptions(directory: string | undefined): string[] {
  return directory === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${directory}`];
}
