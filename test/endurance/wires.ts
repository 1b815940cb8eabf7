/**
 * A small network of its own: a bridge of this machine, and network namespaces that hang on it by one wire each. What runs in a
 * namespace reaches this machine's address on the bridge and the other namespaces. Wires can be cut and throttled (tc tbf).
 */
import { execFileSync } from 'node:child_process';
import type { Undo } from '../../hack/demonstration/undo.ts';

const NETWORKS = 250;
const FIRST_MEMBER = 10;
/** More than a segment that the kernel has not split yet. */
const BURST_BYTES = 128 << 10;

export class Wires {
  /** This machine's address, reached from every namespace. */
  readonly address: string;
  /** What its namespaces and interfaces are called by. */
  readonly label: string;
  readonly #undo: Undo;
  readonly #bridge: string;
  readonly #prefix: string;
  #members = 0;

  private constructor(undo: Undo, network: { label: string; bridge: string; prefix: string }) {
    this.#undo = undo;
    this.label = network.label;
    this.#bridge = network.bridge;
    this.#prefix = network.prefix;
    this.address = `${network.prefix}.1`;
  }

  /** Needs root. */
  static lay(undo: Undo): Wires {
    const label = `fse${process.pid}`;
    const bridge = `${label}b`;
    const prefix = freePrefix();
    ip(['link', 'add', bridge, 'type', 'bridge']);
    undo.add(`remove bridge ${bridge}`, () => void ip(['link', 'delete', bridge]));
    ip(['addr', 'add', `${prefix}.1/24`, 'dev', bridge]);
    ip(['link', 'set', bridge, 'up']);
    return new Wires(undo, { label, bridge, prefix });
  }

  /** A new namespace at the end of a wire. */
  join(): Wire {
    const number = this.#members++;
    const namespace = `${this.label}-${number}`;
    const outer = `${this.label}v${number}`;
    const address = `${this.#prefix}.${FIRST_MEMBER + number}`;
    ip(['netns', 'add', namespace]);
    this.#undo.add(
      `remove network namespace ${namespace}`,
      () => void ip(['netns', 'delete', namespace]),
    );
    ip(['link', 'add', outer, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', namespace]);
    // A namespace may live on without a name, for a connection that is being closed, and its wire with it.
    this.#undo.add(`remove wire ${outer}`, () => void ip(['link', 'delete', outer]));
    ip(['link', 'set', outer, 'master', this.#bridge]);
    ip(['link', 'set', outer, 'up']);
    ip(['-n', namespace, 'link', 'set', 'lo', 'up']);
    ip(['-n', namespace, 'addr', 'add', `${address}/24`, 'dev', 'eth0']);
    ip(['-n', namespace, 'link', 'set', 'eth0', 'up']);
    return new Wire({ namespace, outer, address });
  }
}

export class Wire {
  readonly address: string;
  /** Runs a program in the namespace; filesystems are those of this machine, as `ip netns exec` has it not. */
  readonly inside: readonly string[];
  readonly #namespace: string;
  readonly #outer: string;

  constructor(parts: { namespace: string; outer: string; address: string }) {
    this.address = parts.address;
    this.inside = ['nsenter', `--net=/run/netns/${parts.namespace}`];
    this.#namespace = parts.namespace;
    this.#outer = parts.outer;
  }

  /** Connections are not told: what is sent is lost. */
  cut(): void {
    ip(['link', 'set', this.#outer, 'down']);
  }

  mend(): void {
    ip(['link', 'set', this.#outer, 'up']);
  }

  /** In each direction. */
  throttle(bytesPerSecond: number): void {
    const rate = ['root', 'tbf', 'rate', `${bytesPerSecond * 8}bit`];
    const limit = ['burst', String(BURST_BYTES), 'latency', '300ms'];
    tc(['qdisc', 'replace', 'dev', this.#outer, ...rate, ...limit]);
    tc(['-n', this.#namespace, 'qdisc', 'replace', 'dev', 'eth0', ...rate, ...limit]);
  }

  unthrottle(): void {
    tc(['qdisc', 'delete', 'dev', this.#outer, 'root']);
    tc(['-n', this.#namespace, 'qdisc', 'delete', 'dev', 'eth0', 'root']);
  }
}

/** Of a network that this machine does not know. */
function freePrefix(): string {
  const known = ip(['-4', '-o', 'addr', 'show']);
  for (let tried = 0; tried < NETWORKS; tried += 1) {
    const prefix = `10.213.${(process.pid + tried) % NETWORKS}`;
    if (!known.includes(` ${prefix}.`)) return prefix;
  }
  throw new Error('all networks from 10.213.0.0/24 to 10.213.249.0/24 are in use on this machine');
}

function ip(args: readonly string[]): string {
  return execFileSync('ip', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}

function tc(args: readonly string[]): void {
  execFileSync('tc', args, { stdio: ['ignore', 'pipe', 'pipe'] });
}
