import type { VaultConnection, VaultStores } from '../../controllers/openvaults/stores.ts';
import { Operator, type OperatorDeps } from '../../operator/operator.ts';
import type { KubeClient } from '../../platform/kubernetes.ts';
import { systemClock } from '../../platform/node/clock.ts';
import { systemRandom } from '../../platform/node/random.ts';
import type { Clock, Logger } from '../../platform/ports.ts';

/** An operator in this process. */
export interface RunningOperator {
  operator: Operator;
  stop(): Promise<void>;
}

/** Over any KubeClient and any stores; it looks at everything often. */
export function startOperator(options: {
  kube: KubeClient;
  stores: (connection: VaultConnection) => VaultStores;
  log: Logger;
  /** The operator's own. */
  namespace?: string;
  watchNamespace?: string;
  holder?: string;
  leaderElect?: boolean;
  runFailover?: OperatorDeps['runFailover'];
  clock?: Clock;
}): RunningOperator {
  const { kube, stores, log, namespace = 'default', holder = 'test cluster' } = options;
  const operator = new Operator(
    {
      kube,
      clock: options.clock ?? systemClock,
      random: systemRandom,
      log,
      makeStores: async (connection) => stores(connection),
      ...(options.runFailover === undefined ? {} : { runFailover: options.runFailover }),
    },
    {
      operatorNamespace: namespace,
      watchNamespace: options.watchNamespace,
      identity: `operator-${systemRandom.bytes(4).join('')}`,
      holder,
      leaderElect: options.leaderElect ?? false,
      intervals: { pollMs: 100, pointsMs: 300, targetMs: 500 },
      stepPollMs: 20,
      statusIntervalMs: 200,
    },
  );
  const abort = new AbortController();
  const ended = operator.run(abort.signal);
  return {
    operator,
    stop: async () => {
      abort.abort(new Error('the test stops the operator'));
      await ended;
    },
  };
}
