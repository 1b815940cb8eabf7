/** The compute adapter over the emulator, with small things to work on: what tests of the Azure side have in common. */
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, expect } from 'vitest';
import { ComputeError, type ComputeErrorCode } from '../../platform/computeErrors.ts';
import type { AzureResourceRef, Compute } from '../../platform/ports.ts';
import { defaultSettings } from './context.ts';
import {
  type ArmFixture,
  computeFor,
  startArmFixture,
  testGroup,
  testLocation,
  uploadVhd,
} from './fixture.ts';

export const MIB = 1 << 20;
/** On everything that is made here. */
export const tags = { 'farshore-failover': 'f1', owner: 'tests' };

interface Made {
  ref: AzureResourceRef;
  id: string;
}

/** For all tests of a file: started before the first, stopped after the last; faults and settings last one test. */
export function workbenchOfFile(): Workbench {
  const bench = new Workbench();
  beforeAll(async () => await bench.start());
  afterEach(async () => await bench.reset());
  afterAll(async () => await bench.stop());
  return bench;
}

export class Workbench {
  #fixture: ArmFixture | undefined;
  #compute: Compute | undefined;
  #serial = 0;

  async start(): Promise<void> {
    this.#fixture = await startArmFixture();
    this.#compute = computeFor(this.#fixture.emulator);
  }

  async reset(): Promise<void> {
    const { control } = this.fixture.emulator;
    await control.clearFaults();
    await control.change(defaultSettings);
  }

  async stop(): Promise<void> {
    await this.#fixture?.stop();
  }

  get fixture(): ArmFixture {
    if (this.#fixture === undefined) throw new Error('the workbench is not started');
    return this.#fixture;
  }

  get compute(): Compute {
    if (this.#compute === undefined) throw new Error('the workbench is not started');
    return this.#compute;
  }

  /** A name that no other test has. */
  fresh(kind: string): AzureResourceRef {
    return { resourceGroup: testGroup, name: `${kind}-${++this.#serial}` };
  }

  async smallVhd(): Promise<{ url: string; body: Buffer }> {
    const body = Buffer.alloc(3 * MIB);
    randomBytes(5_000).copy(body, MIB - 100);
    randomBytes(512).copy(body, 3 * MIB - 512);
    const { name } = this.fresh('small');
    const url = await uploadVhd(this.fixture.container, { name: `${name}.vhd`, image: body });
    return { url, body };
  }

  importing(sourceUrl: string, change: Partial<Parameters<Compute['importDisk']>[1]> = {}) {
    return {
      location: testLocation,
      sourceUrl,
      storageAccountId: this.fixture.account.id,
      type: 'Standard_LRS' as const,
      os: { type: 'Linux', generation: 'V1' } as const,
      tags,
      ...change,
    };
  }

  async servers(): Promise<{ id: string; location: string }> {
    const subnet = await this.compute.subnet({
      resourceGroup: testGroup,
      network: 'production',
      subnet: 'servers',
    });
    if (subnet === undefined) throw new Error('the fixture has no subnet');
    return subnet;
  }

  async someNic(): Promise<Made> {
    const ref = this.fresh('nic');
    const subnetId = (await this.servers()).id;
    const nic = await this.compute.createNic(ref, { location: testLocation, subnetId, tags });
    return { ref, id: nic.id };
  }

  async someDisk(): Promise<Made & { body: Buffer }> {
    const { url, body } = await this.smallVhd();
    const ref = this.fresh('disk');
    const disk = await this.compute.importDisk(ref, this.importing(url));
    return { ref, id: disk.id, body };
  }

  /** How often the emulator made it. */
  async createdTimes(kind: string, ref: AzureResourceRef): Promise<number> {
    return (await this.fixture.emulator.control.creations())[`${kind}/${ref.name}`] ?? 0;
  }
}

export function machine(options: { osDiskId: string; nicIds: string[] }) {
  return {
    location: testLocation,
    size: 'Standard_B2s',
    osType: 'Linux' as const,
    dataDisks: [],
    tags,
    ...options,
  };
}

export async function errorOf(promise: Promise<unknown>): Promise<ComputeError> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof ComputeError) return error;
    throw error;
  }
  throw new Error('it succeeded');
}

export async function expectCode(
  promise: Promise<unknown>,
  code: ComputeErrorCode,
): Promise<ComputeError> {
  const error = await errorOf(promise);
  expect({ code: error.code, message: error.message }).toEqual({ code, message: error.message });
  return error;
}

export function isAlive(pid: number): boolean {
  return existsSync(`/proc/${pid}`);
}
