/**
 * The operator, wired: caches that run always, controllers that run while this process leads. What touches the world is given in;
 * `main.ts` makes it.
 */
import {
  defaultIntervals,
  type Environment,
  type Intervals,
  namespaceOf,
  vaultKeyOf,
} from '../controllers/environment.ts';
import { type FailoverDeps, FailoverReconciler } from '../controllers/failover/reconcile.ts';
import { Figures } from '../controllers/openvaults/figures.ts';
import { OpenVaults } from '../controllers/openvaults/openVaults.ts';
import type { StoresFactory } from '../controllers/openvaults/stores.ts';
import { ProcessServerReconciler } from '../controllers/processserver/reconcile.ts';
import { ProtectedVMReconciler } from '../controllers/protectedvm/reconcile.ts';
import { loadInstallation } from '../controllers/recoveryvault/installation.ts';
import { RecoveryVaultReconciler } from '../controllers/recoveryvault/reconcile.ts';
import { ReplicationPolicyReconciler } from '../controllers/replicationpolicy/reconcile.ts';
import { Controller, type Reconcile } from '../controllers/runtime/controller.ts';
import { EventRecorder } from '../controllers/runtime/eventRecorder.ts';
import { Informer } from '../controllers/runtime/informer.ts';
import { LeaderElection } from '../controllers/runtime/leaderElection.ts';
import { keyOf } from '../controllers/runtime/objectKey.ts';
import { StatusWriter } from '../controllers/runtime/statusWriter.ts';
import {
  type Failover,
  farshoreTypes,
  type ProcessServer,
  type ProtectedVM,
  type RecoveryVault,
  type ReplicationPolicy,
} from '../crds/index.ts';
import type { KubeClient } from '../platform/kubernetes.ts';
import type { Clock, Logger, Random } from '../platform/ports.ts';
import { type OperatorMetrics, operatorMetrics } from './metrics.ts';

export const LEASE_NAME = 'farshore-operator';

export interface OperatorDeps {
  kube: KubeClient;
  clock: Clock;
  random: Random;
  log: Logger;
  makeStores: StoresFactory;
  /** recovery/failover.ts, unless a test stands in. */
  runFailover?: FailoverDeps['run'];
}

export interface OperatorOptions {
  /** Where the operator's own Secret and lease are. */
  operatorNamespace: string;
  /** The one namespace whose resources are looked after; all when absent. */
  watchNamespace?: string | undefined;
  /** Unique to this process: a pod's name. */
  identity: string;
  /** How people recognise this installation. */
  holder: string;
  /** False for a single process that nobody competes with. */
  leaderElect: boolean;
  intervals?: Partial<Intervals>;
  /** How often a waiting step of a failover looks again. */
  stepPollMs?: number;
  /** For tests: how often figures alone are written into a status. */
  statusIntervalMs?: number;
}

type Kind = keyof Environment['caches'];

export class Operator {
  readonly #deps: OperatorDeps;
  readonly #options: OperatorOptions;
  readonly #informers;
  readonly #controllers = new Map<Kind, Controller>();
  readonly figures = new Figures();
  readonly metrics: OperatorMetrics;
  #leading = false;
  #mayChange = () => true;

  constructor(deps: OperatorDeps, options: OperatorOptions) {
    this.#deps = deps;
    this.#options = options;
    this.#informers = makeInformers(deps, options);
    this.metrics = operatorMetrics({
      figures: this.figures,
      queueDepths: () =>
        Object.fromEntries(
          [...this.#controllers].map(([kind, controller]) => [kind, controller.depth]),
        ),
    });
    this.metrics.setLeader(false);
  }

  /** Every cache is complete. */
  get ready(): boolean {
    return Object.values(this.#informers).every((informer) => informer.synced);
  }

  get leading(): boolean {
    return this.#leading;
  }

  /** Works until the signal aborts; resolves when everything has ended. */
  async run(signal: AbortSignal): Promise<void> {
    const caches = Promise.all(
      Object.values(this.#informers).map((informer) => informer.run(signal)),
    );
    const { leaderElect, identity, operatorNamespace } = this.#options;
    if (!leaderElect) await this.#lead(signal);
    else {
      const election = new LeaderElection(this.#kubeDeps(), {
        lease: { namespace: operatorNamespace, name: LEASE_NAME },
        identity,
      });
      this.#mayChange = () => election.isHeld;
      await election.run(signal, (term) => this.#lead(term));
    }
    await caches;
  }

  /** Everything anew for each term: what an earlier one believed of the vaults may be old. */
  async #lead(signal: AbortSignal): Promise<void> {
    const { log } = this.#deps;
    const installation = await this.#installation(signal);
    if (installation === undefined) return;
    const events = new EventRecorder(this.#kubeDeps(), {
      controller: 'farshore.dev/operator',
      instance: this.#options.identity,
    });
    const environment = this.#environment(events);
    const failovers = new FailoverReconciler({
      environment,
      log,
      stepPollMs: this.#options.stepPollMs ?? 2_000,
      run: this.#deps.runFailover,
    });
    const vaults = new RecoveryVaultReconciler({
      environment,
      installation,
      makeStores: (connection) => this.#deps.makeStores(connection, { mayChange: this.#mayChange }),
    });
    const machines = new ProtectedVMReconciler(environment);
    const processServers = new ProcessServerReconciler(environment);
    const policies = new ReplicationPolicyReconciler(environment);
    this.#wire({
      vaults: (key, context) => vaults.reconcile(key, context),
      policies: (key, context) => policies.reconcile(key, context),
      machines: (key, context) => machines.reconcile(key, context),
      processServers: (key, context) => processServers.reconcile(key, context),
      failovers: (key, context) => failovers.reconcile(key, context),
    });
    this.#setLeading(true);
    log.info({ installation: installation.id }, 'leading');
    try {
      await Promise.all([...this.#controllers.values()].map((one) => one.run(signal)));
      await failovers.ended();
      await vaults.close();
    } finally {
      this.#setLeading(false);
      this.#controllers.clear();
      // Who leads now reports them; two truths about one machine help nobody.
      this.figures.clear();
      await events.flush();
    }
  }

  /** Waits for the API server as long as it takes; undefined when the signal aborted first. */
  async #installation(signal: AbortSignal) {
    const { clock, kube, log, random } = this.#deps;
    const { operatorNamespace, holder } = this.#options;
    for (let failures = 0; !signal.aborted; failures += 1) {
      try {
        return await loadInstallation({ kube, random }, { namespace: operatorNamespace, holder });
      } catch (error) {
        log.error({ error }, 'the controller key could not be read; trying again');
        await clock.sleep(Math.min(30_000, 1_000 * 2 ** failures), signal).catch(() => {});
      }
    }
    return undefined;
  }

  #environment(events: EventRecorder): Environment {
    const { clock, kube, random } = this.#deps;
    const { intervals, statusIntervalMs } = this.#options;
    return {
      kube,
      clock,
      random,
      caches: this.#informers,
      openVaults: new OpenVaults(),
      figures: this.figures,
      status: new StatusWriter(
        { client: kube, clock, random },
        statusIntervalMs === undefined ? {} : { valueIntervalMs: statusIntervalMs },
      ),
      events,
      enqueue: (kind, key) => this.#controllers.get(kind)?.enqueue(key),
      intervals: { ...defaultIntervals, ...intervals },
    };
  }

  /** Who is looked at when what changes. Changes in the vault are queued by the RecoveryVault controller, which polls it. */
  #wire(reconciles: Record<Kind, Reconcile>): void {
    const all = this.#informers;
    const make = (kind: Kind, workers: number) => {
      const controller = new Controller(
        { clock: this.#deps.clock, random: this.#deps.random, logger: this.#deps.log },
        {
          name: kind,
          workers,
          reconcile: reconciles[kind],
          observe: ({ controller: name, durationMs, outcome, code }) =>
            this.metrics.observeReconcile({
              controller: name,
              seconds: durationMs / 1000,
              error: outcome === 'error' ? (code ?? 'Unknown') : undefined,
            }),
        },
      );
      this.#controllers.set(kind, controller.needs(...Object.values(all)));
      return controller;
    };
    make('vaults', 4).watch(all.vaults);
    make('policies', 1).watch(all.policies);
    make('machines', 8)
      .watch(all.machines)
      .watch(all.vaults, (vault) => this.#machinesWhere((one) => vaultKeyOf(one) === keyOf(vault)))
      .watch(all.policies, (policy) =>
        this.#machinesWhere((one) => isNamed(one, policy, one.spec.policyRef)),
      )
      .watch(all.processServers, (server) =>
        this.#machinesWhere((one) => isNamed(one, server, one.spec.processServerRef)),
      );
    make('processServers', 4)
      .watch(all.processServers)
      .watch(all.vaults, (vault) =>
        all.processServers
          .list()
          .filter((one) => vaultKeyOf(one) === keyOf(vault))
          .map(keyOf),
      )
      .watch(all.policies, (policy) =>
        all.processServers
          .list()
          .filter((one) => namespaceOf(one) === namespaceOf(policy))
          .map(keyOf),
      );
    make('failovers', 4)
      .watch(all.failovers)
      .watch(all.machines, (machine) =>
        all.failovers
          .list()
          .filter((one) => isNamed(one, machine, one.spec.machineRef))
          .map(keyOf),
      );
  }

  #machinesWhere(holds: (machine: ProtectedVM) => boolean): string[] {
    return this.#informers.machines.list().filter(holds).map(keyOf);
  }

  #setLeading(leading: boolean): void {
    this.#leading = leading;
    this.metrics.setLeader(leading);
  }

  #kubeDeps() {
    const { clock, kube, log, random } = this.#deps;
    return { client: kube, clock, random, logger: log };
  }
}

function makeInformers(deps: OperatorDeps, options: OperatorOptions) {
  const { clock, kube, log, random } = deps;
  const common = { client: kube, clock, random, logger: log };
  const where = options.watchNamespace === undefined ? {} : { namespace: options.watchNamespace };
  return {
    vaults: new Informer<RecoveryVault>(common, { type: farshoreTypes.recoveryVault, ...where }),
    policies: new Informer<ReplicationPolicy>(common, {
      type: farshoreTypes.replicationPolicy,
      ...where,
    }),
    machines: new Informer<ProtectedVM>(common, { type: farshoreTypes.protectedVM, ...where }),
    processServers: new Informer<ProcessServer>(common, {
      type: farshoreTypes.processServer,
      ...where,
    }),
    failovers: new Informer<Failover>(common, { type: farshoreTypes.failover, ...where }),
  };
}

/** Whether `one`'s reference, which stays in its namespace, names `target`. */
function isNamed(
  one: ProtectedVM | Failover,
  target: ReplicationPolicy | ProcessServer | ProtectedVM,
  reference: { name: string },
): boolean {
  return namespaceOf(one) === namespaceOf(target) && reference.name === target.metadata.name;
}
