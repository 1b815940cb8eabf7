import { describe, expect, test } from 'vitest';
import { SectorAccount } from './accounting.ts';

/** A kernel that counts and traces, and an account that watches it. */
class Kernel {
  counted = 1_000_000;
  waiting = 0;
  nowMs = 0;
  readonly account: SectorAccount;

  constructor(account = new SectorAccount({ name: '/dev/test' })) {
    this.account = account;
  }

  write(sectors: number): void {
    this.counted += sectors;
    this.waiting += sectors;
  }

  /** `during`: what completes between the count and the drain. */
  round(during = 0): void {
    this.nowMs += 100;
    this.account.beforeDrain(this.counted, this.nowMs);
    this.write(during);
    this.account.afterDrain(this.waiting, this.nowMs);
    this.waiting = 0;
  }
}

describe('SectorAccount', () => {
  test('balances exactly once the disk was quiet for a moment', () => {
    const kernel = new Kernel();
    kernel.round(80);
    kernel.round(64);
    expect(kernel.account.proven).toBe(false);
    kernel.round();
    kernel.round();
    expect(kernel.account.uncertainty).toBe(0);
    expect(kernel.account.proven).toBe(true);
  });

  test('never accuses a busy disk that loses nothing', () => {
    const kernel = new Kernel();
    for (let round = 0; round < 1000; round += 1) {
      kernel.write((round * 7919) % 513);
      kernel.round((round * 104_729) % 97);
    }
    expect(kernel.account.uncertainty).toBeLessThan(97);
  });

  test('shows a single lost sector at once on a quiet disk', () => {
    const kernel = new Kernel();
    kernel.round();
    kernel.round();
    kernel.counted += 1;
    expect(() => kernel.round()).toThrow(/counts 1 more sectors written to \/dev\/test/);
  });

  test('shows a loss under load as soon as there is a quiet moment, and proves nothing until then', () => {
    const kernel = new Kernel();
    kernel.round();
    kernel.round();
    kernel.counted += 8;
    kernel.round(800);
    expect(kernel.account.proven).toBe(false);
    expect(() => kernel.round()).toThrow(expect.objectContaining({ code: 'TrackingLost' }));
  });

  test('waits for a count that comes after its trace, but not for ever', () => {
    const kernel = new Kernel();
    kernel.round();
    kernel.round();
    kernel.waiting += 8;
    kernel.round();
    kernel.round();
    expect(kernel.account.proven).toBe(false);
    kernel.counted += 8;
    kernel.round();
    expect(kernel.account.proven).toBe(true);
    kernel.waiting += 8;
    const forever = () => {
      for (let round = 0; round < 60; round += 1) kernel.round();
    };
    expect(forever).toThrow(/I\/O statistics/);
  });

  test('goes on after a restart, and notices what was lost meanwhile', () => {
    const before = new Kernel();
    before.write(100);
    before.round();
    before.round();
    before.round();
    const saved = before.account.save();
    const whole = new Kernel(new SectorAccount({ name: 'd', saved }));
    whole.counted = before.counted;
    whole.write(5);
    whole.round();
    whole.round();
    expect(whole.account.proven).toBe(true);
    const torn = new Kernel(new SectorAccount({ name: 'd', saved }));
    torn.counted = before.counted + 5;
    expect(() => torn.round()).toThrow(/5 more sectors/);
  });
});
