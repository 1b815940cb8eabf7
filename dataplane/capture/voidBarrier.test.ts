/** What makes a barrier void, and what is left then: nothing frozen, nothing forgotten. */
import { describe, expect } from 'vitest';
import { test } from '../../test/fixtures/capturedMachine.ts';
import { LEAF_SIZE } from '../journal/record.ts';

describe('a barrier', () => {
  test('is void when a write while it is frozen reaches past a RAID’s own record, and names it', async ({
    machine,
  }) => {
    machine.freezer.raidRecords = [{ devicePath: '/dev/fake', offset: 0, length: 8192 }];
    machine.device.write(5 * LEAF_SIZE, 4096, 5);
    machine.freezer.onFrozen = () => {
      let once = true;
      machine.device.beforeRead = () => {
        if (once) machine.device.write(4096, 8192, 8);
        once = false;
      };
    };
    await expect(machine.barrier()).rejects.toMatchObject({
      code: 'WrittenWhileFrozen',
      message: expect.stringContaining('8192 bytes at 4096 of /dev/fake'),
    });
  });

  test('is void when anything else is written while it is frozen, and keeps what it took dirty', async ({
    machine,
  }) => {
    machine.device.write(0, 4096, 5);
    machine.freezer.onFrozen = () => {
      let once = true;
      machine.device.beforeRead = () => {
        if (once) machine.device.write(8192, 4096, 6);
        once = false;
      };
    };
    await expect(machine.barrier()).rejects.toMatchObject({
      code: 'WrittenWhileFrozen',
      message: expect.stringContaining('4096 bytes at 8192 of /dev/fake'),
    });
    expect(machine.freezer.frozen).toBe(false);
    expect([...machine.disk.dirt.dirty.leaves()]).toEqual([[0, 0b101]]);
    machine.freezer.onFrozen = () => undefined;
    machine.device.beforeRead = () => undefined;
    await machine.barrier();
    machine.expectCopyToBe(machine.device.bytes);
  });

  test('is void when somebody else absorbed the write that was seen while frozen', async ({
    machine,
  }) => {
    machine.device.write(0, 4096, 5);
    machine.freezer.onFrozen = () => {
      let once = true;
      machine.device.beforeRead = () => {
        if (once) {
          machine.device.write(8192, 4096, 6);
          void machine.tracking.absorb();
        }
        once = false;
      };
    };
    await expect(machine.barrier()).rejects.toMatchObject({ code: 'WrittenWhileFrozen' });
  });

  test('is void when more was written than can be kept in memory: thaws, loses nothing, and the next one is right', async ({
    machine,
  }) => {
    machine.frozenBytesMax = 4 * LEAF_SIZE;
    for (const leaf of [0, 1, 2, 20, 40])
      machine.device.write(leaf * LEAF_SIZE, LEAF_SIZE, leaf + 1);
    await expect(machine.barrier()).rejects.toMatchObject({ code: 'BehindTheLink' });
    expect(machine.freezer.calls.slice(-2)).toEqual(['freeze', 'thaw']);
    expect(machine.freezer.frozen).toBe(false);
    expect(machine.sink.nextLsn).toBe(1n);
    expect(machine.tracking.dirtyBytes).toBe(5 * LEAF_SIZE);
    machine.frozenBytesMax = 5 * LEAF_SIZE;
    await machine.barrier();
    machine.expectCopyToBe(machine.device.bytes);
    expect(machine.tracking.dirtyBytes).toBe(0);
  });

  test('is void when a filesystem can not be frozen', async ({ machine }) => {
    machine.freezer.failFreeze = true;
    await expect(machine.barrier()).rejects.toMatchObject({ code: 'FreezeFailed' });
  });

  test('is void when somebody else thawed', async ({ machine }) => {
    machine.device.write(0, 4096, 5);
    machine.freezer.thawedByOthers = ['/data'];
    await expect(machine.barrier()).rejects.toMatchObject({ code: 'ThawedEarly' });
    expect(machine.tracking.dirtyBytes).toBe(4096);
  });

  test('is void, and never sent, when it is the last one and somebody thawed before it was read', async ({
    machine,
  }) => {
    machine.device.write(0, 4096, 5);
    machine.freezer.thawedByOthers = ['/data'];
    await expect(machine.barrier({ final: true })).rejects.toMatchObject({ code: 'ThawedEarly' });
    expect(machine.sink.nextLsn).toBe(1n);
    expect(machine.tracking.dirtyBytes).toBe(4096);
    expect(machine.freezer.calls).not.toContain('hold');
  });

  test('blames the early thaw, not those who then wrote', async ({ machine }) => {
    machine.freezer.thawedByOthers = ['/data'];
    machine.freezer.onFrozen = () => {
      const original = machine.device.writtenSectors.bind(machine.device);
      machine.device.writtenSectors = async () => {
        machine.device.write(0, 512, 1);
        return await original();
      };
    };
    await expect(machine.barrier()).rejects.toMatchObject({ code: 'ThawedEarly' });
  });

  test('is not frozen for when the page cache takes long to write back', async ({ machine }) => {
    machine.freezer.syncMs = 600;
    await expect(machine.barrier()).rejects.toMatchObject({ code: 'TooMuchToSync' });
    expect(machine.freezer.calls).not.toContain('freeze');
  });

  test('is void when a disk never comes to rest', async ({ machine }) => {
    machine.freezer.onFrozen = () => {
      const original = machine.device.writtenSectors.bind(machine.device);
      machine.device.writtenSectors = async () => {
        machine.device.write(0, 512, 1);
        return await original();
      };
    };
    await expect(machine.barrier()).rejects.toMatchObject({ code: 'NotQuiet' });
    expect(machine.freezer.frozen).toBe(false);
  });

  test('thaws and tells when a disk can not be read while it is frozen', async ({ machine }) => {
    machine.device.write(0, 4096, 5);
    machine.freezer.onFrozen = () => {
      machine.device.readError = new Error('EIO');
    };
    await expect(machine.barrier()).rejects.toThrow('EIO');
    expect(machine.freezer.frozen).toBe(false);
    expect(machine.tracking.dirtyBytes).toBe(4096);
  });

  test('leaves dirty what could not be sent after the thaw', async ({ machine }) => {
    machine.device.write(0, 4096, 5);
    machine.sink.failAfter = 0;
    await expect(machine.barrier()).rejects.toThrow('the session ended');
    expect(machine.tracking.dirtyBytes).toBe(4096);
  });
});

describe('lost tracking ends a barrier', () => {
  test('when a write was not traced, at whatever moment before', async ({ machine }) => {
    await machine.barrier();
    machine.device.blind = true;
    machine.device.write(0, 512, 5);
    machine.device.blind = false;
    await expect(machine.barrier()).rejects.toMatchObject({ code: 'TrackingLost' });
    expect(machine.freezer.frozen).toBe(false);
  });

  test('when the kernel dropped events', async ({ machine }) => {
    machine.tracer.lost = 1;
    await expect(machine.barrier()).rejects.toMatchObject({ code: 'TrackingLost' });
  });

  test('when tracing was changed meanwhile', async ({ machine }) => {
    machine.tracer.problem = 'tracing_on is "0"';
    await expect(machine.barrier()).rejects.toMatchObject({ code: 'TrackingLost' });
    expect(machine.freezer.frozen).toBe(false);
  });

  test('when the disk behind the name is another one', async ({ machine }) => {
    machine.device.identityNow = { ...machine.device.identityNow, diskSequence: 2n };
    await expect(machine.barrier()).rejects.toMatchObject({ code: 'TrackingLost' });
  });
});
