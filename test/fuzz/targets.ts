import type { FuzzTarget } from './target.ts';
import { agentFiles, agentState } from './targets/agent.ts';
import { cacheLog, leafTable, machineState, vhdFooter } from './targets/cache.ts';
import { certificateRequest } from './targets/certificates.ts';
import { kernelText, tracePage } from './targets/linux.ts';
import { records } from './targets/records.ts';
import { sealedSegment, segment, segmentHeader } from './targets/segments.ts';
import { bootstrap, documentTargets, keyString, sealedKey } from './targets/vault.ts';
import { wire } from './targets/wire.ts';

/** Every parser of bytes that somebody else wrote. */
export const fuzzTargets: readonly FuzzTarget[] = [
  wire,
  records,
  segmentHeader,
  segment,
  sealedSegment,
  cacheLog,
  machineState,
  leafTable,
  vhdFooter,
  tracePage,
  kernelText,
  agentState,
  agentFiles,
  bootstrap,
  keyString,
  sealedKey,
  certificateRequest,
  ...documentTargets,
];
