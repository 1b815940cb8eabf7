/** A process server on its host, with its cache volume, restarted by its kubelet when it ends. */
import { Cache, type CacheLimits } from '../../dataplane/journal/cache.ts';
import { inlineCodec } from '../../dataplane/journal/segmentCodec.ts';
import { ProcessServer } from '../../dataplane/processserver/processServer.ts';
import { errorCode, errorMessage } from '../../platform/errors.ts';
import type { Logger } from '../../platform/ports.ts';
import { processServerIdentity } from '../../vault/identity.ts';
import type { BoxKey } from '../../vault/keys.ts';
import type { Chance } from './chance.ts';
import { SimDisk } from './disk.ts';
import { Life } from './life.ts';
import type { Site } from './site.ts';
import { HostClock } from './time.ts';

const RESTART_MS = 4_000;
const STOP_GRACE_MS = 30_000;

export class Server {
  readonly name: string;
  readonly endpoint: string;
  readonly cacheDisk: SimDisk;
  readonly #serverDisk: SimDisk;
  readonly clock: HostClock;
  readonly key: BoxKey;
  readonly #site: Site;
  readonly #chance: Chance;
  readonly #options: { vaultId: string; pinnedKey: string; limits: Partial<CacheLimits> };
  #life: Life;
  #stopping = new AbortController();
  /** Not to be started now. */
  down = false;
  /** Since when what it acknowledged and had not uploaded may be gone: its volume was replaced or damaged. */
  lostAtMs = Number.NEGATIVE_INFINITY;
  /** A bit of its volume was flipped. */
  rotted = false;

  constructor(
    site: Site,
    options: {
      name: string;
      key: BoxKey;
      vaultId: string;
      pinnedKey: string;
      limits: Partial<CacheLimits>;
      cacheBytes: number;
    },
  ) {
    this.#site = site;
    this.#chance = site.chance.fork();
    this.name = options.name;
    this.endpoint = `${options.name}:9443`;
    this.key = options.key;
    this.#options = options;
    const { time } = site;
    this.clock = new HostClock(time, this.#chance.between(-2_000, 2_000));
    this.cacheDisk = new SimDisk({
      time,
      chance: this.#chance.fork(),
      name: `${this.name} cache`,
      capacityBytes: options.cacheBytes,
    });
    this.#serverDisk = new SimDisk({
      time,
      chance: this.#chance.fork(),
      name: `${this.name} server`,
    });
    this.#life = new Life(time, this.name);
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
    const { time } = this.#site;
    const life = new Life(time, this.name);
    this.#life = life;
    const stopping = new AbortController();
    this.#stopping = stopping;
    life.onDeath(() => this.#restart());
    this.#run(life, stopping).then(
      () => life.kill(),
      (error: unknown) => {
        const code = errorCode(error);
        this.#site.logger(this.name).error({ code, error }, 'the process ends');
        // Its message asks for that, and agents send again.
        if (code === 'CacheUnreadable') this.#emptyVolume();
        life.kill();
      },
    );
  }

  kill(): void {
    this.#life.kill();
  }

  /** SIGTERM, and SIGKILL when that does not end it in time. */
  stop(): void {
    const life = this.#life;
    const stopping = this.#stopping;
    life.deliver(() => stopping.abort(new Error('stopped')));
    this.#site.time.after(STOP_GRACE_MS, `${this.name} grace ends`, () => life.kill());
  }

  /** Power of its host fails: what was not synced may be gone. */
  powerLost(): void {
    this.#site.network.powerLost(this.host);
    this.#life.kill();
    this.cacheDisk.crash();
    this.#serverDisk.crash();
  }

  /** Its volume is gone with all on it. */
  volumeLost(): void {
    this.#life.kill();
    this.#emptyVolume();
  }

  #emptyVolume(): void {
    this.lostAtMs = this.#site.time.nowMs;
    this.#site.oracle.volumeLost(this.name);
    this.cacheDisk.replace();
    this.#serverDisk.replace();
  }

  #restart(): void {
    this.#site.time.after(RESTART_MS * this.#chance.between(0.3, 2), `${this.name} restart`, () =>
      this.start(),
    );
  }

  /** Damage that is found must be told on. */
  #watched(log: Logger): Logger {
    return {
      ...log,
      error: (fields, message) => {
        const { machineId } = fields as { machineId?: string };
        if (machineId !== undefined && message.startsWith('what the cache holds of this machine'))
          this.#site.oracle.damageFound(this.name, machineId);
        log.error(fields, message);
      },
      info: (fields, message) => {
        const { machineId } = fields as { machineId?: string };
        if (machineId !== undefined && message === 'The machine is not assigned any more')
          this.#site.oracle.knowsNothingOf(this.name, machineId);
        log.info(fields, message);
      },
      child: (fields) => this.#watched(log.child(fields)),
    };
  }

  /** What dataplane/processserver/main.ts does. */
  async #run(life: Life, stopping: AbortController): Promise<void> {
    const { network, vault } = this.#site;
    const { vaultId, pinnedKey, limits } = this.#options;
    const logger = this.#watched(this.#site.logger(this.name));
    const clock = this.clock.for(life);
    const random = this.#chance.fork();
    const store = vault.objectsFor(life, this.host);
    const disk = this.#serverDisk.for(life);
    const cache = await Cache.open({
      disk: this.cacheDisk.for(life),
      objects: store,
      pages: vault.pagesFor(life, this.host),
      codec: inlineCodec,
      clock,
      random,
      logger,
      limits,
    });
    cache.onFailed((error) => stopping.abort(error));
    try {
      const server = await ProcessServer.start(
        {
          store,
          disk,
          cache,
          clock,
          random,
          logger,
          listen: async ({ onChannel }) =>
            network.listen(this.endpoint, {
              host: this.host,
              life,
              identities: [processServerIdentity(this.name)],
              onChannel,
            }),
        },
        {
          name: this.name,
          version: 'sim',
          vaultId,
          pinnedKey,
          identity: {
            encryptionKey: this.key,
            privateKeyPem: '',
            certificatePem: '',
            caCertificatePem: 'sim',
          },
          port: 9443,
          endpoints: [this.endpoint],
        },
      );
      await server.run(stopping.signal);
    } finally {
      await cache.close();
    }
    this.#site.time.note(`${this.name} ended ${errorMessage(stopping.signal.reason)}`);
  }
}
