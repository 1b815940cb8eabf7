/** Planted bugs of planned failovers (../mutants.ts). */
import type { Mutant } from '../mutant.ts';

export const lastBarrierMutants: readonly Mutant[] = [
  {
    name: 'hold-before-the-vault-has-the-barrier',
    file: 'dataplane/capture/barrier.ts',
    find: '      await this.#inTime(this.#deps.uploaded(lsn), this.#frozenAt + limits.finalDeadlineMs);\n',
    replace: '',
    breaks: '7',
  },
  {
    name: 'thaw-a-held-machine-at-a-restart',
    file: 'dataplane/agent/heldMachine.ts',
    find: '    if (saved.holding === true) {',
    replace: '    if (saved.holding !== false) {',
    breaks: '7',
  },
  {
    name: 'forget-that-the-machine-is-held',
    file: 'dataplane/agent/replication.ts',
    find: '    if (saved.held !== undefined) await this.#held.adopt(saved.held);\n',
    replace: '',
    breaks: 'Production never waits',
  },
  {
    name: 'hold-on-after-a-cancel',
    file: 'dataplane/agent/heldMachine.ts',
    find: '    if (wanted()?.failover !== held.failover) {\n      await this.#thaw(',
    replace:
      '    if (wanted() !== undefined && wanted()?.failover !== held.failover) {\n      await this.#thaw(',
    breaks: 'Production never waits',
  },
  {
    name: 'believe-a-silent-process-server',
    file: 'recovery/steps/seal.ts',
    find: '    else if (told?.heartbeatMs !== first?.heartbeatMs) return;',
    replace: '    else if (told !== undefined) return;',
    breaks: '7',
  },
  {
    name: 'wait-for-the-former-process-server',
    file: 'recovery/steps/finalSync.ts',
    find: '    if (owner !== undefined && owner !== processServer) {',
    replace: '    if (owner === undefined) {',
    breaks: 'RPO returns',
  },
];
