import path from 'node:path';
import { connectKubernetes, type HttpKubeClient } from '../../platform/kube/client.ts';
import { type KubernetesServer, startKubernetes } from './kubernetes.ts';

const CRDS = path.join(import.meta.dirname, '../../crds');

/** A real API server that serves Farshore's CRDs, and a client of it. */
export interface FarshoreCluster {
  server: KubernetesServer;
  client: HttpKubeClient;
  close(): Promise<void>;
}

export async function startFarshoreCluster(): Promise<FarshoreCluster> {
  const server = await startKubernetes();
  try {
    server.kubectl(['apply', '--server-side', '-f', CRDS]);
    server.kubectl(['wait', '--for=condition=Established', 'crd', '--all', '--timeout=30s']);
  } catch (error) {
    await server.stop();
    throw error;
  }
  const client = connectKubernetes({ kubeconfig: server.kubeconfigPath });
  return {
    server,
    client,
    close: async () => {
      client.close();
      await server.stop();
    },
  };
}
