import { describe, expect, test } from 'vitest';
import type { AssignmentsDocument } from '../../vault/documents/assignments.ts';
import type { CatalogDocument } from '../../vault/documents/catalog.ts';
import {
  type AssignmentsInput,
  chooseReplica,
  decideAssignments,
  dropsTooMuch,
  type MachineIntent,
} from './assignments.ts';

function intent(number: number, change: Partial<CatalogDocument> = {}): MachineIntent {
  return {
    paused: false,
    policy: { crashConsistentSeconds: 60, appConsistentSeconds: 0 },
    catalog: {
      machineId: number.toString(16).padStart(32, '0'),
      name: `m${number}`,
      namespace: 'default',
      createdAt: 0,
      writerEpoch: 1,
      processServer: 'ps',
      disks: [{ index: 0, name: 'system', device: '/dev/sda', sizeBytes: 1 }],
      dataKey: [],
      activeSide: 'Source',
      policy: { name: 'policy', retentionSeconds: 1 },
      target: {},
      ...change,
    },
  };
}

const base: AssignmentsInput = {
  vaultId: 'a'.repeat(32),
  processServer: 'ps',
  controllerEpoch: 1,
  caCertificatePem: 'ca',
  machines: [],
  keep: new Set(),
  redirects: {},
  peers: [],
  bandwidth: undefined,
  current: undefined,
  generationFloor: 0,
  confirmedToken: undefined,
};
const many = Array.from({ length: 20 }, (_, number) => intent(number));

function written(input: Partial<AssignmentsInput>): AssignmentsDocument {
  const { write } = decideAssignments({ ...base, ...input });
  if (write === undefined) throw new Error('nothing is written');
  return write;
}

describe('a list', () => {
  test('is written at first, then only when it says something else', () => {
    const first = written({ machines: many });
    expect(first.generation).toBe(1);
    expect(decideAssignments({ ...base, machines: many, current: first }).write).toBeUndefined();
    expect(
      decideAssignments({ ...base, machines: [...many].reverse(), current: first }).write,
    ).toBe(undefined);
    expect(written({ machines: many, current: first, controllerEpoch: 2 })).toMatchObject({
      controllerEpoch: 2,
      generation: 2,
    });
  });

  test('goes on from the highest generation known, even when what stands there was lost', () => {
    expect(written({ machines: many, generationFloor: 41 }).generation).toBe(42);
  });

  test('leaves out a machine without disks, and carries the last barrier that is asked for', () => {
    const finalSync = { failover: 'f', powerOff: true };
    const list = written({ machines: [intent(1, { disks: [] }), intent(2, { finalSync })] });
    expect(list.machines.map((one) => [one.name, one.finalSync])).toEqual([['m2', finalSync]]);
  });

  test('keeps the entry of a machine of which too little is known', () => {
    const current = written({ machines: many });
    const keep = new Set(['default/m3']);
    const list = written({ machines: many.slice(0, 3), keep, current, controllerEpoch: 2 });
    expect(list.machines.map((one) => one.name)).toContain('m3');
  });

  test('that loses many waits for the token of that very removal, and takes up other changes meanwhile', () => {
    const current = written({ machines: many });
    const left = many.slice(4).map((one) => ({ ...one, paused: true }));
    const waiting = decideAssignments({ ...base, machines: left, current });
    expect(waiting.awaitingConfirmation?.machines).toHaveLength(4);
    expect(waiting.write?.machines).toHaveLength(20);
    expect(waiting.write?.machines.filter((one) => one.paused)).toHaveLength(16);
    const token = waiting.awaitingConfirmation?.token;
    const confirmed = decideAssignments({
      ...base,
      machines: left,
      current: waiting.write,
      confirmedToken: token,
    });
    expect(confirmed.write?.machines).toHaveLength(16);
    expect(confirmed.awaitingConfirmation).toBeUndefined();
    // The same machines come back and go again: the old token confirms nothing.
    const back = written({ machines: many, current: confirmed.write });
    const again = decideAssignments({
      ...base,
      machines: many.slice(4),
      current: back,
      confirmedToken: token,
    });
    expect(again.awaitingConfirmation?.machines).toHaveLength(4);
  });

  test.each([
    [3, 4, false],
    [4, 4, true],
    [4, 39, true],
    [4, 40, false],
    [5, 49, true],
    [100, 1000, false],
    [101, 1000, true],
  ])('%i of %i machines is too much: %s', (dropped, before, expected) => {
    expect(dropsTooMuch(dropped, before)).toBe(expected);
  });
});

describe('machines that another process server has now', () => {
  test('leave the list however many they are, without anybody’s confirmation', () => {
    const current = written({ machines: many });
    const [stays, ...gone] = many;
    const redirects = Object.fromEntries(
      gone.map(({ catalog }) => [catalog?.machineId ?? '', ['other:9443']]),
    );
    const machines = stays === undefined ? [] : [stays];
    const decision = decideAssignments({ ...base, machines, redirects, current });
    expect(decision.awaitingConfirmation).toBeUndefined();
    expect(decision.write?.machines.map(({ name }) => name)).toEqual(['m0']);
  });
});

describe('a replica', () => {
  const replicas = ['ps-0', 'ps-1', 'ps-2'];
  const all = { isSilent: () => false, isSteady: () => true };

  test('keeps its machine; a new machine goes to the emptiest', () => {
    const load = new Map([
      ['ps-0', 3],
      ['ps-1', 1],
      ['ps-2', 1],
    ]);
    expect(chooseReplica({ replicas, current: 'ps-0', load, ...all })).toBe('ps-0');
    expect(chooseReplica({ replicas, current: undefined, load, ...all })).toBe('ps-1');
    expect(chooseReplica({ replicas: ['ps-0'], current: 'ps-1', load, ...all })).toBe('ps-0');
    expect(chooseReplica({ replicas: [], current: undefined, load, ...all })).toBeUndefined();
  });

  test('that fell silent loses its machines to the emptiest that reports steadily', () => {
    const load = new Map([
      ['ps-0', 3],
      ['ps-1', 2],
      ['ps-2', 1],
    ]);
    const isSilent = (name: string) => name === 'ps-0';
    const fallen = (isSteady: (name: string) => boolean) =>
      chooseReplica({ replicas, current: 'ps-0', load, isSilent, isSteady });
    expect(fallen((name) => name !== 'ps-0')).toBe('ps-2');
    expect(fallen((name) => name === 'ps-1')).toBe('ps-1');
  });

  test('that fell silent keeps its machines while no other is steady: after an outage of the vault nobody moves', () => {
    const load = new Map<string, number>();
    const isSteady = () => false;
    const isSilent = (name: string) => name === 'ps-0';
    expect(chooseReplica({ replicas, current: 'ps-0', load, isSilent, isSteady })).toBe('ps-0');
  });

  test('that fell silent gets no new machine while others live', () => {
    const load = new Map([['ps-1', 5]]);
    const isSilent = (name: string) => name !== 'ps-1';
    const choose = { replicas, current: undefined, load, isSteady: () => false };
    expect(chooseReplica({ ...choose, isSilent })).toBe('ps-1');
    expect(chooseReplica({ ...choose, isSilent: () => true })).toBe('ps-0');
  });
});
