import { rmSync } from 'node:fs';
import path from 'node:path';
import { vi } from 'vitest';
import type { KubernetesServer } from '../../servers/kubernetes.ts';

/** What the API server discovers a moment after a CRD is established; kubectl caches what it saw before. */
export async function discovered(server: KubernetesServer, look: () => string): Promise<string> {
  return await vi.waitFor(
    () => {
      rmSync(path.join(server.directory, 'kubectl'), { recursive: true, force: true });
      return look();
    },
    { timeout: 30_000, interval: 200 },
  );
}
