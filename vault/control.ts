/**
 * Who is in control of a vault (design §2). One installation is; it raised the controller epoch when it took over, by
 * compare-and-set from the epoch that its manifest names, so that a replayed manifest does nothing.
 */
import { FarshoreError } from '../platform/errors.ts';
import type { Clock, ObjectStore } from '../platform/ports.ts';
import { createDocument, readDocument, type Versioned } from './documentStore.ts';
import { encodeDocument } from './documents/codec.ts';
import { type ControllerDocument, controllerDocumentSchema } from './documents/controller.ts';
import { vaultLayout } from './layout.ts';

export type ControlState =
  | { state: 'InControl'; controllerEpoch: number }
  /** `controller`: who is; undefined when nobody ever was. */
  | { state: 'Standby'; controller: ControllerDocument | undefined };

/** Another installation is in control, or this one at another epoch. Code NotInControl. */
export class NotInControlError extends FarshoreError {
  constructor(controller: ControllerDocument | undefined, expectedEpoch: number) {
    const who =
      controller === undefined
        ? 'nobody is'
        : `installation ${controller.installationId} (${controller.holder}) is, at epoch ${controller.controllerEpoch}`;
    super(
      'NotInControl',
      `This installation is no longer in control of the vault at epoch ${expectedEpoch}: ${who}. Nothing was changed. To take control back, set RecoveryVault.spec.takeControlFromEpoch to that epoch.`,
    );
  }
}

export class VaultControl {
  readonly #store: ObjectStore;
  readonly #clock: Clock;
  readonly #installationId: string;
  readonly #holder: string;

  /** `holder`: how people recognise this installation (cluster and namespace). */
  constructor(
    deps: { store: ObjectStore; clock: Clock },
    identity: { installationId: string; holder: string },
  ) {
    this.#store = deps.store;
    this.#clock = deps.clock;
    this.#installationId = identity.installationId;
    this.#holder = identity.holder;
  }

  async controller(): Promise<ControllerDocument | undefined> {
    return (await this.#read())?.document;
  }

  /** Whether this installation is in control, without changing anything. */
  async state(): Promise<ControlState> {
    return this.#stateOf(await this.controller());
  }

  /**
   * Takes epoch 1 of a vault that nobody ever controlled. The installation that created vault.json calls it, again after a crash
   * in between; for others it only reads.
   */
  async takeFirst(): Promise<ControlState> {
    const created = await createDocument({
      store: this.#store,
      key: vaultLayout.controller,
      schema: controllerDocumentSchema,
      document: this.#document(1),
    });
    return this.#stateOf(created.document);
  }

  /**
   * Takes control if the epoch is still `fromEpoch` (0: nobody was ever in control), else says who is. Being in control already, at
   * whatever epoch, changes nothing. The caller's signing key must be in vault.json before (vault/vault.ts, addControllerKey).
   */
  async takeControl(options: { fromEpoch: number }): Promise<ControlState> {
    const present = await this.#read();
    if (present === undefined)
      return options.fromEpoch === 0
        ? await this.takeFirst()
        : { state: 'Standby', controller: undefined };
    const state = this.#stateOf(present.document);
    if (state.state === 'InControl' || present.document.controllerEpoch !== options.fromEpoch)
      return state;
    const next = this.#document(options.fromEpoch + 1);
    const put = await this.#store.replace(
      vaultLayout.controller,
      encodeDocument(controllerDocumentSchema, next),
      { etag: present.etag },
    );
    // On conflict somebody else was faster, or our own try took effect and its answer was lost: the document says which.
    return put.outcome === 'replaced' ? this.#stateOf(next) : await this.state();
  }

  /** Reads the vault. Throws NotInControlError unless this installation is in control at exactly this epoch. */
  async assertInControl(controllerEpoch: number): Promise<void> {
    const controller = await this.controller();
    if (
      controller?.installationId !== this.#installationId ||
      controller.controllerEpoch !== controllerEpoch
    )
      throw new NotInControlError(controller, controllerEpoch);
  }

  #document(controllerEpoch: number): ControllerDocument {
    return {
      controllerEpoch,
      installationId: this.#installationId,
      holder: this.#holder,
      since: this.#clock.now(),
    };
  }

  #stateOf(controller: ControllerDocument | undefined): ControlState {
    if (controller?.installationId === this.#installationId)
      return { state: 'InControl', controllerEpoch: controller.controllerEpoch };
    return { state: 'Standby', controller };
  }

  async #read(): Promise<Versioned<ControllerDocument> | undefined> {
    return await readDocument({
      store: this.#store,
      key: vaultLayout.controller,
      schema: controllerDocumentSchema,
    });
  }
}
