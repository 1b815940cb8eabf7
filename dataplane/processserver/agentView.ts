import type { AgentStatus } from './machineSession.ts';

/** What an agent said of itself, in Hello and since. */
export interface AgentView {
  lastSeenMs: number | undefined;
  version: string | undefined;
  hostname: string | undefined;
  kernel: string | undefined;
  capturedLsn: bigint;
  disks: AgentStatus['disks'];
  dirtyBytes: number;
  resync: AgentStatus['resync'];
  loss: AgentStatus['loss'];
  lastResync: AgentStatus['lastResync'];
  errors: AgentStatus['errors'];
  final: AgentStatus['final'];
  resyncToken: string | undefined;
}

export const emptyAgentView: AgentView = {
  lastSeenMs: undefined,
  version: undefined,
  hostname: undefined,
  kernel: undefined,
  capturedLsn: 0n,
  disks: [],
  dirtyBytes: 0,
  resync: undefined,
  loss: undefined,
  lastResync: undefined,
  errors: [],
  final: undefined,
  resyncToken: undefined,
};
