/** An applier in Azure, restarted when it ends. */
import { Applier as ProductApplier } from '../../dataplane/applier/applier.ts';
import { ApplierMetrics } from '../../dataplane/applier/metrics.ts';
import { inlineCodec } from '../../dataplane/journal/segmentCodec.ts';
import type { BoxKey } from '../../vault/keys.ts';
import type { Chance } from './chance.ts';
import { Life } from './life.ts';
import type { Site } from './site.ts';
import { HostClock } from './time.ts';

const RESTART_MS = 4_000;

export class Applier {
  readonly name: string;
  readonly clock: HostClock;
  readonly #site: Site;
  readonly #chance: Chance;
  readonly #options: { vaultId: string; key: BoxKey };
  #life: Life;
  #stopping = new AbortController();
  down = false;

  constructor(site: Site, options: { name: string; vaultId: string; key: BoxKey }) {
    this.#site = site;
    this.#chance = site.chance.fork();
    this.name = options.name;
    this.#options = options;
    this.clock = new HostClock(site.time, this.#chance.between(-2_000, 2_000));
    this.#life = new Life(site.time, this.name);
    this.#life.kill();
  }

  get host(): string {
    return this.name;
  }

  get life(): Life {
    return this.#life;
  }

  start(): void {
    if (!this.#life.dead || this.down) return;
    const { time, vault } = this.#site;
    const life = new Life(time, this.name);
    this.#life = life;
    this.#stopping = new AbortController();
    life.onDeath(() =>
      time.after(RESTART_MS * this.#chance.between(0.3, 2), `${this.name} restart`, () =>
        this.start(),
      ),
    );
    const applier = new ProductApplier(
      {
        objects: vault.objectsFor(life, this.host),
        pages: vault.pagesFor(life, this.host),
        clock: this.clock.for(life),
        random: this.#chance.fork(),
        logger: this.#site.logger(this.name),
        codec: inlineCodec,
        metrics: new ApplierMetrics(),
      },
      { ...this.#options, name: 'applier', version: 'sim' },
    );
    applier.run(this.#stopping.signal).then(
      () => life.kill(),
      (error: unknown) => time.fail(error),
    );
  }

  kill(): void {
    this.#life.kill();
  }

  /** SIGTERM. */
  stop(): void {
    const stopping = this.#stopping;
    this.#life.deliver(() => stopping.abort(new Error('stopped')));
  }
}
