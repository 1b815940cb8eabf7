/**
 * A running guest (guestImage.ts) and two ways into it: a shell behind its second serial port, and QEMU's monitor (QMP), which
 * unplugs and resizes disks and stops the machine.
 */
import { existsSync, mkdirSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { bootMachine, type QemuMachine } from './qemu.ts';

export interface GuestDisk {
  /** Of QEMU's drive and device: what is unplugged or resized. */
  id: string;
  path: string;
  bus: 'virtio' | 'scsi' | 'nvme';
}

export interface GuestOptions {
  /** For serial log and sockets. */
  directory: string;
  root: string;
  disks?: readonly GuestDisk[];
  memoryMiB?: number;
}

export interface Outcome {
  status: number;
  output: string;
}

const BOOT_MS = 120_000;
const COMMAND_MS = 60_000;
let guests = 0;

export class GuestMachine {
  readonly machine: QemuMachine;
  readonly #control: LineSocket;
  readonly #monitor: LineSocket;
  readonly #commands = new Map<string, (outcome: Outcome) => void>();
  readonly #replies: ((reply: QmpReply) => void)[] = [];
  readonly #events: { event: string; data: Record<string, unknown> }[] = [];
  #next = 1;

  private constructor(machine: QemuMachine, sockets: { control: LineSocket; monitor: LineSocket }) {
    this.machine = machine;
    this.#control = sockets.control;
    this.#monitor = sockets.monitor;
    this.#control.onLine((line) => this.#answered(line));
    this.#monitor.onLine((line) => this.#replied(line));
  }

  /** Resolves once the guest's shell answers. */
  static async boot(options: GuestOptions): Promise<GuestMachine> {
    guests += 1;
    const directory = path.join(options.directory, `guest${guests}`);
    mkdirSync(directory);
    const [control, monitor] = [path.join(directory, 'control'), path.join(directory, 'qmp')];
    const machine = bootMachine({
      name: `guest${guests}`,
      disks: [{ path: options.root, bus: 'virtio' }],
      serialFile: path.join(directory, 'serial.log'),
      memoryMiB: options.memoryMiB ?? 1024,
      cpus: 2,
      arguments: [
        ...['-netdev', 'user,id=network', '-device', 'virtio-net-pci,netdev=network'],
        ...['-chardev', `socket,id=control,path=${control},server=on,wait=off`],
        ...['-serial', 'chardev:control'],
        ...['-chardev', `socket,id=qmp,path=${monitor},server=on,wait=off`],
        ...['-mon', 'chardev=qmp,mode=control'],
        ...['-device', 'virtio-scsi-pci,id=scsi'],
        ...(options.disks ?? []).flatMap(diskArguments),
      ],
    });
    try {
      const guest = new GuestMachine(machine, {
        control: await LineSocket.connect(control, machine),
        monitor: await LineSocket.connect(monitor, machine),
      });
      // Said once its shell listens; what is sent earlier is lost.
      const ready = guest.#answerOf('ready', { timeoutMs: BOOT_MS, what: 'boot' });
      await guest.monitor('qmp_capabilities');
      await ready;
      return guest;
    } catch (error) {
      await machine.kill();
      throw error;
    }
  }

  /** Runs a shell script in the guest as root. Others may run at the same time. */
  async try(script: string, options: { timeoutMs?: number } = {}): Promise<Outcome> {
    const id = String(this.#next);
    this.#next += 1;
    const timeoutMs = options.timeoutMs ?? COMMAND_MS;
    const outcome = this.#answerOf(id, { timeoutMs, what: script });
    this.#control.send(`${id} ${Buffer.from(script).toString('base64')}`);
    return await outcome;
  }

  /** What it printed. Rejects when it fails. */
  async run(script: string, options: { timeoutMs?: number } = {}): Promise<string> {
    const { status, output } = await this.try(script, options);
    if (status !== 0) throw new Error(`In the guest, ${script} ended with ${status}: ${output}`);
    return output.trimEnd();
  }

  /** A QMP command. Rejects with QEMU's error. */
  async monitor(execute: string, given: Record<string, unknown> = {}): Promise<unknown> {
    const reply = new Promise<QmpReply>((resolve) => this.#replies.push(resolve));
    this.#monitor.send(JSON.stringify({ execute, arguments: given }));
    const answer = await inTime(reply, 30_000, () => `QEMU did not answer ${execute}`);
    if (answer.error !== undefined)
      throw new Error(`QEMU refused ${execute}: ${answer.error.desc}`);
    return answer.return;
  }

  /** Unplugs a disk; resolves once the guest has let go of it. */
  async unplug(id: string): Promise<void> {
    await this.monitor('device_del', { id });
    const deadline = performance.now() + 30_000;
    const isGone = () =>
      this.#events.some(({ event, data }) => event === 'DEVICE_DELETED' && data.device === id);
    while (!isGone()) {
      if (performance.now() > deadline) throw new Error(`The guest did not let go of ${id}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  /**
   * Presses the reset button: without being asked the guest begins anew, while its disks stay plugged in and QEMU goes on. Resolves
   * once the guest's shell answers again; what ran in it has no answer.
   */
  async reset(): Promise<void> {
    this.#commands.clear();
    const ready = this.#answerOf('ready', { timeoutMs: BOOT_MS, what: 'boot after a reset' });
    // It was started to end at a reset, as a guest that fails to boot should.
    await this.monitor('set-action', { reboot: 'reset' });
    await this.monitor('system_reset');
    await ready;
    // Not before: the BIOS resets once more by itself, to have its own code as it was.
    await this.monitor('set-action', { reboot: 'shutdown' });
  }

  /** Pulls the plug. What the guest had written to its disks stays. */
  async kill(): Promise<void> {
    await this.machine.kill();
    this.#control.close();
    this.#monitor.close();
  }

  async #answerOf(id: string, options: { timeoutMs: number; what: string }): Promise<Outcome> {
    const outcome = new Promise<Outcome>((resolve) => this.#commands.set(id, resolve));
    return await inTime(outcome, options.timeoutMs, () => {
      this.#commands.delete(id);
      return `The guest did not finish: ${options.what}\n${this.machine.serial().slice(-1500)}`;
    });
  }

  #answered(line: string): void {
    const [id = '', status = '', output = ''] = line.split(' ');
    const done = this.#commands.get(id);
    this.#commands.delete(id);
    done?.({ status: Number(status), output: Buffer.from(output, 'base64').toString() });
  }

  #replied(line: string): void {
    const message = JSON.parse(line) as QmpReply;
    if (message.event !== undefined)
      this.#events.push({ event: message.event, data: message.data ?? {} });
    else if ('return' in message || 'error' in message) this.#replies.shift()?.(message);
  }
}

interface QmpReply {
  return?: unknown;
  error?: { desc: string };
  event?: string;
  data?: Record<string, unknown>;
}

class LineSocket {
  readonly #socket: Socket;
  #onLine: (line: string) => void = () => undefined;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('error', () => undefined);
    createInterface({ input: socket }).on('line', (line) => this.#onLine(line));
  }

  static async connect(file: string, machine: QemuMachine): Promise<LineSocket> {
    for (let tries = 0; !existsSync(file); tries += 1) {
      if (!machine.running || tries > 200)
        throw new Error(`QEMU made no socket ${file}: ${(await machine.exited).complaint}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    const socket = connect(file);
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', reject);
    });
    return new LineSocket(socket);
  }

  onLine(listener: (line: string) => void): void {
    this.#onLine = listener;
  }

  send(line: string): void {
    this.#socket.write(`${line}\n`);
  }

  close(): void {
    this.#socket.destroy();
  }
}

/** What the guest flushes is not synced here: it would wait for that, and only a power loss of this host could tell. */
function diskArguments(disk: GuestDisk): string[] {
  const { id, bus } = disk;
  const drive = `file=${disk.path.replaceAll(',', ',,')},format=raw,if=none,id=${id}-drive,cache=unsafe,discard=unmap`;
  const device = {
    virtio: `virtio-blk-pci,drive=${id}-drive,id=${id}`,
    scsi: `scsi-hd,bus=scsi.0,drive=${id}-drive,id=${id}`,
    nvme: `nvme,drive=${id}-drive,id=${id},serial=${id}`,
  }[bus];
  return ['-drive', drive, '-device', device];
}

async function inTime<T>(work: Promise<T>, timeoutMs: number, otherwise: () => string): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(otherwise())), timeoutMs);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}
