/** `carrier.ts PORT SOCKET`: listens on 127.0.0.1:PORT and carries every connection to the Unix socket. */
import net from 'node:net';

const [port = '', socket = ''] = process.argv.slice(2);
net
  .createServer((client) => {
    const outside = net.connect(socket);
    client.pipe(outside).pipe(client);
    for (const [one, other] of [[client, outside] as const, [outside, client] as const])
      one.on('error', () => other.destroy()).on('close', () => other.destroy());
  })
  .listen(Number(port), '127.0.0.1');
