import fc from 'fast-check';
import { expect, test } from 'vitest';
import { standsHostileBytes } from '../test/fuzz/hostile.ts';
import { bootstrap } from '../test/fuzz/targets/vault.ts';
import { valuesOf } from '../test/fuzz/values.ts';
import { bootstrapSchema, decodeBootstrap, vaultLocationSchema } from './bootstrap.ts';

test('any bootstrap file comes back', () => {
  const { container, prefix, connectionString } = vaultLocationSchema.shape;
  const direct = fc.record({
    container: valuesOf(container),
    prefix: valuesOf(prefix),
    connectionString: valuesOf(connectionString).filter((text) => text !== undefined),
  });
  fc.assert(
    fc.property(valuesOf(bootstrapSchema.omit({ vault: true })), direct, (rest, vault) => {
      const file = { port: 9443, endpoints: [], ...(rest as object), vault };
      expect(decodeBootstrap(JSON.stringify(file))).toEqual(file);
    }),
    { numRuns: 100 },
  );
});

test('any other bytes are refused with BootstrapInvalid', async () => {
  await standsHostileBytes(bootstrap);
});

test('what is refused is named, and no secret is told', () => {
  const vault = { container: 'c', connectionString: 'AccountKey=secret-of-the-vault' };
  const file = { name: 'Not A Name', vault, token: 'secret-of-the-enrolment' };
  expect(() => decodeBootstrap(JSON.stringify(file))).toThrow(/name/);
  expect(() => decodeBootstrap(JSON.stringify(file))).not.toThrow(/secret-of/);
  expect(() => decodeBootstrap(`secret ${JSON.stringify(file)}`)).not.toThrow(/secret-of/);
});
