import net from 'node:net';

/** A TCP proxy on a loopback port whose connections can be broken, and kept from coming back. */
export class CuttableProxy {
  readonly port: number;
  /** Bytes that went towards the target. */
  forwarded = 0;
  readonly #server: net.Server;
  readonly #sockets: Set<net.Socket>;
  #open = true;

  private constructor(server: net.Server, sockets: Set<net.Socket>) {
    this.#server = server;
    this.#sockets = sockets;
    this.port = (server.address() as net.AddressInfo).port;
  }

  static async to(target: { host: string; port: number }): Promise<CuttableProxy> {
    const sockets = new Set<net.Socket>();
    let proxy: CuttableProxy | undefined;
    const server = net.createServer((near) => {
      if (proxy !== undefined && !proxy.#open) {
        near.destroy();
        return;
      }
      const far = net.connect(target.port, target.host);
      near.on('data', ({ length }) => {
        if (proxy !== undefined) proxy.forwarded += length;
      });
      for (const [one, other] of [
        [near, far],
        [far, near],
      ] as const) {
        sockets.add(one);
        one.on('error', () => other.destroy());
        one.on('close', () => {
          sockets.delete(one);
          other.destroy();
        });
        one.pipe(other);
      }
    });
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(0, '127.0.0.1', resolve);
    });
    proxy = new CuttableProxy(server, sockets);
    return proxy;
  }

  /** Breaks every connection; new ones are closed until `restore`. */
  cut(): void {
    this.#open = false;
    for (const socket of this.#sockets) socket.destroy();
  }

  restore(): void {
    this.#open = true;
  }

  async close(): Promise<void> {
    this.cut();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}
