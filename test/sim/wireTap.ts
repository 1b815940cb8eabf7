/** What is said on a connection, read without the product's decoder: each write of a connection is one frame. */

const HEADER = 12;
const TYPES = {
  Welcome: 2,
  Data: 16,
  Uploaded: 18,
  BarrierPrepare: 32,
  BarrierFreeze: 34,
  Barrier: 35,
  BarrierAcknowledged: 36,
  AgentStatus: 48,
} as const;

const ASKED_ABOUT = new Set<number>(Object.values(TYPES));

export type Spoken =
  | { kind: 'Welcome'; writerEpoch: number; asksForResync: boolean }
  | { kind: 'Data'; lastLsn: bigint }
  | { kind: 'Uploaded'; uploadedLsn: bigint; barrierLsn: bigint }
  | { kind: 'BarrierPrepare'; id: number; final: boolean }
  | { kind: 'AgentStatus'; standsStillFor: string | undefined }
  | { kind: 'BarrierFreeze'; id: number; timeMs: number }
  | { kind: 'Barrier'; id: number; lsn: bigint }
  | { kind: 'BarrierAcknowledged'; id: number; lsn: bigint };

/** Undefined for what nobody asks about. */
export function spokenIn(frame: Uint8Array): Spoken | undefined {
  if (frame.length < HEADER) return undefined;
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  const type = view.getUint8(4);
  if (type === TYPES.Data) {
    const firstLsn = view.getBigUint64(HEADER, true);
    return { kind: 'Data', lastLsn: firstLsn + BigInt(view.getUint32(HEADER + 8, true)) - 1n };
  }
  if (!ASKED_ABOUT.has(type)) return undefined;
  const message = JSON.parse(new TextDecoder().decode(frame.subarray(HEADER))) as Record<
    string,
    unknown
  >;
  const number = (name: string) => Number(message[name]);
  const lsn = (name: string) => BigInt(String(message[name]));
  switch (type) {
    case TYPES.Welcome:
      return {
        kind: 'Welcome',
        writerEpoch: number('writerEpoch'),
        asksForResync: (message.resync as { required: boolean }).required,
      };
    case TYPES.Uploaded:
      return {
        kind: 'Uploaded',
        uploadedLsn: lsn('uploadedLsn'),
        barrierLsn: lsn('barrierLsn'),
      };
    case TYPES.BarrierPrepare:
      return { kind: 'BarrierPrepare', id: number('id'), final: message.final !== undefined };
    case TYPES.AgentStatus:
      return {
        kind: 'AgentStatus',
        standsStillFor: (message.final as { failover: string } | undefined)?.failover,
      };
    case TYPES.BarrierFreeze:
      return { kind: 'BarrierFreeze', id: number('id'), timeMs: number('timeMs') };
    case TYPES.Barrier:
      return { kind: 'Barrier', id: number('id'), lsn: lsn('lsn') };
    default:
      return { kind: 'BarrierAcknowledged', id: number('id'), lsn: lsn('lsn') };
  }
}
