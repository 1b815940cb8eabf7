/**
 * Who this agent is: one file in the state directory, made at enrolment and replaced as a whole. It also remembers the boot in which
 * the machine was last protected, which tells a reboot from a lost state.
 */
import { z } from 'zod';
import { replaceFile } from '../../platform/durableFile.ts';
import { errorCode, FarshoreError } from '../../platform/errors.ts';
import type { Disk } from '../../platform/ports.ts';
import { machineIdSchema } from '../../vault/documents/fields.ts';

const IDENTITY_FILE = 'identity.json';
const REQUEST_FILE = 'request.json';
const BOOT_FILE = 'boot.json';
const FILE_MAX = 256 << 10;

const identitySchema = z.object({
  name: z.string(),
  machineId: machineIdSchema,
  privateKeyPem: z.string(),
  certificatePem: z.string(),
  caCertificatePem: z.string(),
});
export type AgentIdentity = z.infer<typeof identitySchema>;

/** A request that may be on its way: asking again must use the same key. */
const requestSchema = z.object({ name: z.string(), privateKeyPem: z.string(), csrPem: z.string() });
export type EnrolmentDraft = z.infer<typeof requestSchema>;

const bootSchema = z.object({ bootId: z.string() });

export class IdentityStore {
  readonly #disk: Disk;

  /** `disk`: a durable directory that only root can read. */
  constructor(disk: Disk) {
    this.#disk = disk;
  }

  async identity(): Promise<AgentIdentity | undefined> {
    return await this.#read(IDENTITY_FILE, identitySchema);
  }

  async saveIdentity(identity: AgentIdentity): Promise<void> {
    await this.#replace(IDENTITY_FILE, identity);
    await this.#disk.remove(REQUEST_FILE);
  }

  async draft(): Promise<EnrolmentDraft | undefined> {
    return await this.#read(REQUEST_FILE, requestSchema);
  }

  async saveDraft(draft: EnrolmentDraft): Promise<void> {
    await this.#replace(REQUEST_FILE, draft);
  }

  async removeDraft(): Promise<void> {
    await this.#disk.remove(REQUEST_FILE);
  }

  async protectedInBoot(): Promise<string | undefined> {
    return (await this.#read(BOOT_FILE, bootSchema))?.bootId;
  }

  async saveProtectedInBoot(bootId: string): Promise<void> {
    await this.#replace(BOOT_FILE, { bootId });
  }

  async #read<S extends z.ZodType>(path: string, schema: S): Promise<z.output<S> | undefined> {
    let file: Awaited<ReturnType<Disk['open']>>;
    try {
      file = await this.#disk.open(path, 'read');
    } catch (error) {
      if (errorCode(error) === 'ENOENT') return undefined;
      throw error;
    }
    try {
      const bytes = new Uint8Array(Math.min(FILE_MAX, await file.size()));
      const read = await file.read(bytes, 0);
      return schema.parse(JSON.parse(new TextDecoder().decode(bytes.subarray(0, read))));
    } catch (cause) {
      throw new FarshoreError(
        'AgentIdentityDamaged',
        `${path} in the agent's state directory can't be read. Remove it and enrol again; the machine keeps its recovery points.`,
        { cause },
      );
    } finally {
      await file.close();
    }
  }

  async #replace(path: string, value: object): Promise<void> {
    await replaceFile(this.#disk, path, new TextEncoder().encode(`${JSON.stringify(value)}\n`));
  }
}
