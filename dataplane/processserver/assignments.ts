/**
 * What this process server must do, as the operator last signed it. The newest good assignments are kept in the cache directory and
 * served from there when vault or operator are dead; older ones, forged ones and those for somebody else are refused and named.
 */
import { z } from 'zod';
import { ensureDirectory, readFile, replaceFile } from '../../platform/durableFile.ts';
import { errorCode, errorMessage, FarshoreError } from '../../platform/errors.ts';
import type { Clock, Disk, Logger, ObjectStore } from '../../platform/ports.ts';
import { trustedControllers } from '../../vault/controllerTrust.ts';
import {
  type AssignmentsDocument,
  assignmentsDocumentSchema,
} from '../../vault/documents/assignments.ts';
import { decodeDocument } from '../../vault/documents/codec.ts';
import { signedSchema } from '../../vault/documents/signed.ts';
import { vaultLayout } from '../../vault/layout.ts';
import { type AcceptedDocument, FreshnessGuard, openSigned } from '../../vault/signing.ts';
import { requireVault } from '../../vault/vault.ts';

const SAVED_DIRECTORY = 'control';
const SAVED_FILE = `${SAVED_DIRECTORY}/assignments.json`;
const DOCUMENT_MAX = 64 << 20;
export const ASSIGNMENTS_POLL_MS = 3_000;

const savedSchema = z.object({
  accepted: z.object({
    controllerEpoch: z.number().int().positive(),
    generation: z.number().int().positive(),
    sha256: z.string(),
  }),
  signed: signedSchema,
});

export interface AssignmentsDeps {
  store: ObjectStore;
  disk: Disk;
  clock: Clock;
  logger: Logger;
}

export interface AssignmentsOptions {
  /** This process server. */
  name: string;
  vaultId: string;
  /** The controller's public key that the bootstrap file pins. */
  pinnedKey: string;
}

export class Assignments {
  readonly #deps: AssignmentsDeps;
  readonly #options: AssignmentsOptions;
  readonly #key: string;
  #guard: FreshnessGuard;
  #current: AssignmentsDocument | undefined;
  #etag: string | undefined;
  #problem: { code: string; message: string; sinceMs: number } | undefined;

  private constructor(
    deps: AssignmentsDeps,
    options: AssignmentsOptions,
    saved: { document: AssignmentsDocument; accepted: AcceptedDocument } | undefined,
  ) {
    this.#deps = deps;
    this.#options = options;
    this.#key = vaultLayout.assignments(options.name);
    this.#current = saved?.document;
    this.#guard = this.#guardFrom(saved?.accepted);
  }

  /** With what was accepted before a restart. Throws VaultDocumentError when that file is damaged. */
  static async open(deps: AssignmentsDeps, options: AssignmentsOptions): Promise<Assignments> {
    await ensureDirectory(deps.disk, SAVED_DIRECTORY);
    const bytes = await readFile(deps.disk, SAVED_FILE, DOCUMENT_MAX + (1 << 20));
    if (bytes === undefined) return new Assignments(deps, options, undefined);
    const saved = decodeDocument(savedSchema, SAVED_FILE, bytes);
    // Its signer counted when it was saved, and this directory is ours: no vault is needed to go on.
    const { document } = openSigned({
      key: SAVED_FILE,
      bytes: new TextEncoder().encode(JSON.stringify(saved.signed)),
      schema: assignmentsDocumentSchema,
      trusted: new Set([saved.signed.signer]),
    });
    return new Assignments(deps, options, { document, accepted: saved.accepted });
  }

  /** The newest that were accepted; undefined before the first. */
  get current(): AssignmentsDocument | undefined {
    return this.#current;
  }

  /** Why the vault's assignments are not taken over now. */
  get problem(): { code: string; message: string; sinceMs: number } | undefined {
    return this.#problem;
  }

  /** Looks once; true when newer ones were accepted. Never throws: a failure is kept as `problem` and logged when it is new. */
  async poll(): Promise<boolean> {
    try {
      const changed = await this.#look();
      this.#problem = undefined;
      return changed;
    } catch (error) {
      this.#keepProblem(error);
      return false;
    }
  }

  async #look(): Promise<boolean> {
    const head = await this.#deps.store.head(this.#key);
    if (head === undefined || head.etag === this.#etag) return false;
    const stored = await this.#deps.store.get(this.#key, { length: DOCUMENT_MAX });
    if (stored === undefined) return false;
    const changed = await this.#accept(stored.body);
    this.#etag = stored.etag;
    return changed;
  }

  async #accept(bytes: Uint8Array): Promise<boolean> {
    const vault = await requireVault(this.#deps.store);
    const { document, signed } = openSigned({
      key: this.#key,
      bytes,
      schema: assignmentsDocumentSchema,
      trusted: trustedControllers({ vault: vault.document, pinned: this.#options.pinnedKey }),
    });
    this.#checkAddressee(document);
    this.#saving = signed;
    const outcome = await this.#guard.accept({
      key: this.#key,
      controllerEpoch: document.controllerEpoch,
      generation: document.generation,
      payload: signed.payload,
    });
    if (outcome === 'same' && this.#current !== undefined) return false;
    this.#current = document;
    this.#deps.logger.info(
      {
        controllerEpoch: document.controllerEpoch,
        generation: document.generation,
        machines: document.machines.length,
      },
      'New assignments',
    );
    return true;
  }

  #saving: z.infer<typeof signedSchema> | undefined;

  #guardFrom(last: AcceptedDocument | undefined): FreshnessGuard {
    return new FreshnessGuard({
      last,
      persist: (accepted) => {
        const text = JSON.stringify({ accepted, signed: this.#saving });
        return replaceFile(this.#deps.disk, SAVED_FILE, new TextEncoder().encode(text));
      },
    });
  }

  #checkAddressee(document: AssignmentsDocument): void {
    const { vaultId, name } = this.#options;
    if (document.vaultId !== vaultId || document.processServer !== name)
      throw new FarshoreError(
        'AssignmentsMisdirected',
        `${this.#key} is for process server ${document.processServer} of vault ${document.vaultId}, not for ${name} of ${vaultId}. It is ignored; somebody copied it here.`,
      );
  }

  #keepProblem(error: unknown): void {
    const code = errorCode(error);
    const isNew = this.#problem?.code !== code;
    const sinceMs = isNew ? this.#deps.clock.now() : (this.#problem?.sinceMs ?? 0);
    this.#problem = { code, message: errorMessage(error), sinceMs };
    if (isNew)
      this.#deps.logger.warn(
        { code, error },
        'Assignments can not be read from the vault; going on with the last ones',
      );
  }
}
