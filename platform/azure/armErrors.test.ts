import { RestError } from '@azure/core-rest-pipeline';
import { expect, test } from 'vitest';
import { armError } from './armErrors.ts';
import { AzureLoginError } from './login.ts';

const quota =
  'Operation could not be completed as it results in exceeding approved Total Regional Cores quota.';

test.each([
  [401, 'InvalidAuthenticationToken', 'x', 'AuthenticationFailed'],
  [403, 'AuthorizationFailed', 'x', 'AuthenticationFailed'],
  [403, 'RequestDisallowedByPolicy', 'x', 'InvalidRequest'],
  [404, 'ResourceGroupNotFound', 'x', 'NotFound'],
  [400, 'InvalidResourceReference', 'x', 'NotFound'],
  [400, 'InvalidParameter', 'x', 'InvalidRequest'],
  [400, 'NicInUse', 'x', 'Conflict'],
  [409, 'OperationNotAllowed', quota, 'QuotaExceeded'],
  [409, 'OperationNotAllowed', 'Disk a is attached to VM b.', 'Conflict'],
  [409, 'SkuNotAvailable', 'x', 'QuotaExceeded'],
  [400, 'PublicIPCountLimitReached', 'x', 'QuotaExceeded'],
  [429, 'OperationNotAllowed', 'x', 'Throttled'],
  [503, undefined, 'x', 'Unreachable'],
] as const)('%i %s (%s) is %s', (statusCode, code, message, expected) => {
  const error = armError('do it', new RestError(message, { statusCode, code }));
  expect(error.code).toBe(expected);
  expect(error.azureCode).toBe(code);
});

test.each([
  ['ZonalAllocationFailed', 'No capacity. Sorry.', 'QuotaExceeded'],
  ['OperationNotAllowed', quota, 'QuotaExceeded'],
  ['InternalDiskError', 'It broke.\nTwice.', 'OperationFailed'],
])('an operation that failed with %s is read from its text', (azureCode, message, expected) => {
  const cause = new Error(`The long-running operation has failed. ${azureCode}. ${message}`);
  const error = armError('do it', cause);
  expect(error).toMatchObject({ code: expected, azureCode });
  expect(error.message).toContain(message.replace(/\.$/, ''));
});

test('an operation that failed without a reason, or was cancelled, is OperationFailed', () => {
  for (const text of ['The long-running operation has failed', 'Operation was canceled'])
    expect(armError('do it', new Error(text)).code).toBe('OperationFailed');
});

test('a deadline is OperationSlow, no answer is Unreachable, a refused login AuthenticationFailed', () => {
  const aborted = Object.assign(new Error('aborted'), { name: 'AbortError' });
  expect(armError('do it', aborted)).toMatchObject({ code: 'OperationSlow', transient: true });
  const refused = new RestError('connect ECONNREFUSED', { code: 'ECONNREFUSED' });
  expect(armError('do it', refused).code).toBe('Unreachable');
  expect(armError('do it', new AzureLoginError('no', { refused: true })).code).toBe(
    'AuthenticationFailed',
  );
  expect(armError('do it', new AzureLoginError('no', { refused: false })).code).toBe('Unreachable');
});

test('the message says what was asked and what to do; the request, with its token, stays out', () => {
  const cause = new RestError('Bad size', { statusCode: 400, code: 'InvalidParameter' });
  Object.assign(cause, { request: { headers: { authorization: 'Bearer secret' } } });
  const error = armError('create virtual machine web in resource group dr', cause);
  expect(error.message).toBe(
    'Azure was asked to create virtual machine web in resource group dr, and it failed (InvalidParameter): Bad size. Correct what the message names.',
  );
  expect(JSON.stringify(error.cause, Object.getOwnPropertyNames(error.cause))).not.toContain(
    'secret',
  );
  expect(error.cause).not.toHaveProperty('request');
});
