import { describe, expect, test } from 'vitest';
import type { ProcessServer } from '../../crds/index.ts';
import { processServer } from '../../test/operator/manifests.ts';
import {
  endpointsOf,
  governingService,
  hostsOf,
  replicaService,
  replicasOf,
  selectorOf,
  statefulSet,
} from './objects.ts';

type Spec = Partial<ProcessServer['spec']>;

function stateful(spec: Spec = {}): ProcessServer {
  const server = processServer('ps', {
    mode: 'StatefulSet',
    cache: { size: '10Gi' },
    image: 'farshore:1',
    ...spec,
  });
  const { exposure: _, ...rest } = server.spec;
  return {
    ...server,
    spec: { ...rest, ...(spec.exposure === undefined ? {} : { exposure: spec.exposure }) },
  };
}

const first = { name: 'ps-0', ordinal: 0 };
const second = { name: 'ps-1', ordinal: 1 };

// What the API server is sent has no static type beyond "an object": these are the parts that are looked at.
interface Pod {
  containers: {
    image: string;
    ports: { name: string; containerPort: number }[];
    resources?: unknown;
    volumeMounts: { mountPath: string; subPathExpr?: string }[];
  }[];
  volumes: { projected: { sources: { secret: { name: string } }[] } }[];
}
interface Set {
  spec: {
    replicas: number;
    selector: { matchLabels: Record<string, string> };
    template: { metadata: { labels: Record<string, string> }; spec: Pod };
    volumeClaimTemplates: {
      spec: { storageClassName?: string; resources: { requests: { storage: string } } };
    }[];
  };
}
interface Service {
  spec: {
    type?: string;
    clusterIP?: string;
    selector: Record<string, string>;
    ports: { port: number; targetPort: string }[];
  };
}
const setOf = (spec: Spec) => (statefulSet(stateful(spec)) as unknown as Set).spec;
const podOf = (spec: Spec) => setOf(spec).template.spec;
const serviceOf = (spec: Spec) =>
  (replicaService(stateful(spec), second) as unknown as Service).spec;

describe('the StatefulSet', () => {
  test('has the replicas that are asked for, each with its own bootstrap file', () => {
    expect(setOf({ replicas: 1 }).replicas).toBe(1);
    expect(setOf({ replicas: 3 }).replicas).toBe(3);
    const secrets = (spec: Spec) =>
      podOf(spec).volumes[0]?.projected.sources.map((source) => source.secret.name);
    expect(secrets({ replicas: 1 })).toEqual(['ps-0-bootstrap']);
    expect(secrets({ replicas: 3 })).toEqual([
      'ps-0-bootstrap',
      'ps-1-bootstrap',
      'ps-2-bootstrap',
    ]);
    expect(podOf({}).containers[0]?.volumeMounts.at(-1)?.subPathExpr).toBe('$(POD_NAME).json');
  });

  test('runs the image, and listens on the port', () => {
    const [container] = podOf({ image: 'registry.example/farshore:2', port: 9555 }).containers;
    expect(container?.image).toBe('registry.example/farshore:2');
    expect(container?.ports.find((one) => one.name === 'agents')?.containerPort).toBe(9555);
  });

  test('gives each replica the resources that are asked for, and none when none are', () => {
    const resources = { requests: { cpu: '500m', memory: '1Gi' }, limits: { memory: '2Gi' } };
    expect(podOf({ resources }).containers[0]?.resources).toEqual(resources);
    expect(podOf({}).containers[0]).not.toHaveProperty('resources');
  });

  test('keeps its cache on volumes of the size and class that are asked for, else of the cluster’s default', () => {
    const claimOf = (cache: NonNullable<Spec['cache']>) =>
      setOf({ cache }).volumeClaimTemplates[0]?.spec;
    expect(claimOf({ size: '10Gi' })).not.toHaveProperty('storageClassName');
    expect(claimOf({ size: '200Gi', storageClassName: 'fast' })).toMatchObject({
      storageClassName: 'fast',
      resources: { requests: { storage: '200Gi' } },
    });
  });

  test('selects the pods that it makes, and so does the selector that is shown for scaling', () => {
    const { selector, template } = setOf({});
    expect(template.metadata.labels).toMatchObject(selector.matchLabels);
    const shown = Object.fromEntries(
      selectorOf(stateful())
        .split(',')
        .map((one) => one.split('=')),
    );
    expect(shown).toEqual(selector.matchLabels);
  });
});

describe('the Services', () => {
  test.each(['ClusterIP', 'NodePort', 'LoadBalancer'] as const)(
    'of the replicas are of the type that is asked for: %s',
    (serviceType) => {
      expect(serviceOf({ exposure: { serviceType } }).type).toBe(serviceType);
    },
  );

  test('are of type ClusterIP when none is asked for', () => {
    expect(serviceOf({}).type).toBe('ClusterIP');
    expect(serviceOf({ exposure: {} }).type).toBe('ClusterIP');
  });

  test('lead to one replica on the port, and the governing one to all by name', () => {
    const service = serviceOf({ port: 9555 });
    expect(service.selector).toMatchObject({ 'statefulset.kubernetes.io/pod-name': 'ps-1' });
    expect(service.ports).toMatchObject([{ port: 9555, targetPort: 'agents' }]);
    expect(governingService(stateful({ port: 9555 }))).toMatchObject({
      metadata: { name: 'ps' },
      spec: { clusterIP: 'None', ports: [{ port: 9555 }] },
    });
  });
});

describe('endpoints', () => {
  const external = processServer('ps', { port: 9555 });

  test('of an External one are all that it names, of one replica by the resource’s name', () => {
    expect(replicasOf(external)).toEqual([{ name: 'ps', ordinal: 0 }]);
    expect(endpointsOf(external, { name: 'ps', ordinal: 0 }, [])).toEqual([
      'ps.example:9443',
      '[2001:db8::1]:9443',
    ]);
  });

  test('of a replica are its own of those that are named, in order', () => {
    const endpoints = ['a.example:9443', 'b.example:19443'];
    const server = stateful({ replicas: 2, exposure: { endpoints, serviceType: 'LoadBalancer' } });
    expect(endpointsOf(server, first, [])).toEqual(['a.example:9443']);
    expect(endpointsOf(server, second, [{ ip: '192.0.2.1' }])).toEqual(['b.example:19443']);
  });

  test('are the load balancer’s addresses with the port, and not known before it has one', () => {
    const server = stateful({ port: 9555, exposure: { serviceType: 'LoadBalancer' } });
    expect(endpointsOf(server, first, [])).toBeUndefined();
    expect(endpointsOf(server, first, [{}])).toBeUndefined();
    expect(
      endpointsOf(server, first, [
        { ip: '192.0.2.1' },
        { ip: '2001:db8::7' },
        { hostname: 'lb.example', ip: '192.0.2.2' },
      ]),
    ).toEqual(['192.0.2.1:9555', '[2001:db8::7]:9555', 'lb.example:9555']);
  });

  test('are the Service’s name inside the cluster else', () => {
    expect(endpointsOf(stateful({ port: 9555 }), second, [])).toEqual(['ps-1.default.svc:9555']);
  });

  test('stand in a certificate without port and brackets, each host once', () => {
    expect(hostsOf(['a.example:9443', '[2001:db8::1]:9443', '192.0.2.1:1', 'a.example:2'])).toEqual(
      ['a.example', '2001:db8::1', '192.0.2.1'],
    );
  });
});
