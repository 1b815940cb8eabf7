import { describe, expect } from 'vitest';
import { StoreError } from '../../platform/storeErrors.ts';
import { enrolAgent } from '../../test/fakes/scriptedAgent.ts';
import { type ScriptedSite, test } from '../../test/fixtures/scriptedSite.ts';
import { FrameType } from '../wire/messages.ts';

describe('enrolment through a process server', () => {
  const enrol = (site: ScriptedSite, name: string, passphrase: string) =>
    enrolAgent({
      channel: site.connect(undefined),
      clock: site.clock,
      random: site.random,
      name,
      passphrase,
    });

  test('brings the operator’s answer to an agent that knows the passphrase', async ({ site }) => {
    const enrolled = await site.withOperator(enrol(site, 'db1', site.operator.passphrase));
    expect(enrolled.machineId).toBe(site.machineId);
    expect(enrolled.caCertificatePem).toBe(site.operator.vault.ca.certificatePem);
  });

  test('tells an agent with a wrong passphrase so, and says it in the log', async ({ site }) => {
    await expect(site.withOperator(enrol(site, 'db1', 'wrong'))).rejects.toThrow('WrongPassphrase');
    expect(site.logger.lines.some((line) => line.fields.code === 'WrongPassphrase')).toBe(true);
  });

  test('refuses names that can be none, without troubling the vault', async ({ site }) => {
    const before = site.store.keys().length;
    await expect(site.withOperator(enrol(site, '../x', site.operator.passphrase))).rejects.toThrow(
      'NameInvalid',
    );
    expect(site.store.keys().length).toBe(before);
  });

  /** `nonce`, or the code of the refusal. */
  async function firstAnswer(site: ScriptedSite, address?: string): Promise<string> {
    const asked = site.stranger(undefined, address);
    await asked.connection.send(FrameType.EnrolBegin, { name: 'db1' });
    const answer = await asked.connection.receive();
    await asked.connection.close();
    if (answer?.type === FrameType.EnrolNonce) return 'nonce';
    if (answer?.type === FrameType.EnrolAnswer && answer.message.outcome === 'refused')
      return answer.message.code;
    throw new Error(`an answer of type ${answer?.type}`);
  }
  const answersTo = async (site: ScriptedSite, addresses: string[]) => {
    const outcomes = new Map<string, number>();
    for (const address of addresses) {
      const outcome = await firstAnswer(site, address);
      outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
    }
    return Object.fromEntries(outcomes);
  };

  test('refuses an address that asks too often, and it alone, until a while has passed', async ({
    site,
  }) => {
    const [often, other] = ['198.51.100.1', '198.51.100.2'];
    expect(await answersTo(site, Array(40).fill(often))).toEqual({ nonce: 40 });
    const before = site.store.keys().length;
    expect(await answersTo(site, Array(20).fill(often))).toEqual({ EnrolmentRateLimited: 20 });
    expect(site.store.keys().length).toBe(before);
    expect(await answersTo(site, [other])).toEqual({ nonce: 1 });
    expect(site.logger.lines).toContainEqual(
      expect.objectContaining({
        level: 'warn',
        fields: expect.objectContaining({ code: 'EnrolmentRateLimited', address: often }),
      }),
    );
    await site.clock.advance(60_000);
    expect(await answersTo(site, Array(21).fill(often))).toEqual({
      nonce: 20,
      EnrolmentRateLimited: 1,
    });
  });

  test('refuses whoever asks when too many addresses do, and none of them for good', async ({
    site,
  }) => {
    const flood = Array.from({ length: 150 }, (_, index) => `203.0.113.${index}`);
    expect(await answersTo(site, flood)).toEqual({ nonce: 120, EnrolmentRateLimited: 30 });
    await site.clock.advance(60_000);
    expect(await answersTo(site, flood.slice(0, 61))).toEqual({
      nonce: 60,
      EnrolmentRateLimited: 1,
    });
  });

  test('says that the vault can’t be reached instead of leaving the agent waiting', async ({
    site,
  }) => {
    site.store.fault = (operation) =>
      operation === 'putIfAbsent'
        ? { when: 'before', error: new StoreError('VaultUnreachable', 'no answer') }
        : undefined;
    await expect(site.withOperator(enrol(site, 'db1', site.operator.passphrase))).rejects.toThrow(
      'EnrolmentFailed',
    );
  });
});
