import { describe, expect, test } from 'vitest';
import type { FailoverDocument } from '../vault/documents/failover.ts';
import { diskName, nicName, vmName } from './names.ts';

describe('names in Azure', () => {
  test('of two disks differ, however long and alike their own names are', () => {
    const names = [0, 1].map((index) =>
      diskName(documentOf('m'.repeat(64)), { index, name: `${'d'.repeat(60)}${index}` }),
    );
    expect(new Set(names).size).toBe(2);
  });

  test('are at most 64 characters long, and tell failovers apart', () => {
    const long = documentOf('m'.repeat(64));
    const disk = { index: 63, name: 'd'.repeat(63) };
    for (const name of [vmName(long), nicName(long, 7), diskName(long, disk)]) {
      expect(name.length).toBeLessThanOrEqual(64);
      expect(name).toContain('abcdef01');
    }
  });
});

function documentOf(name: string): FailoverDocument {
  return {
    failoverId: 'abcdef0123456789abcdef0123456789',
    request: { type: 'Test', target: { name } },
  } as FailoverDocument;
}
