/**
 * Boots disks under QEMU, emulated on any host (TCG: KVM hangs on some machines that offer it), with the boot loader that they
 * carry. The machine's serial port goes to a file. It dies with this process, however that ends.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, existsSync, openSync, readFileSync } from 'node:fs';

export interface QemuDisk {
  path: string;
  /** `vpc`: a fixed VHD, its virtual size taken from the footer. */
  format?: 'raw' | 'vpc';
  /** The first disk is booted. As in an Azure generation 1 machine: the OS disk on `ide`, data disks on `scsi` by LUN. */
  bus: 'ide' | 'scsi' | 'virtio';
  lun?: number;
}

export interface QemuOptions {
  name: string;
  disks: readonly QemuDisk[];
  /** Appended to. */
  serialFile: string;
  memoryMiB?: number;
  cpus?: number;
  /** More of QEMU's own arguments: a kernel, a network. */
  arguments?: readonly string[];
}

const DEFAULT_MEMORY_MIB = 512;
const STDERR_KEPT = 4_096;

export class QemuMachine {
  readonly pid: number;
  readonly serialFile: string;
  /** Resolves when the machine is off: QEMU's exit code (null when killed), and what it complained about. */
  readonly exited: Promise<{ code: number | null; complaint: string }>;
  readonly #process: ChildProcess;
  #running = true;

  constructor(process: ChildProcess, serialFile: string) {
    if (process.pid === undefined) throw new Error('QEMU did not start: is qemu-system-x86 there?');
    this.pid = process.pid;
    this.serialFile = serialFile;
    this.#process = process;
    let complaint = '';
    process.stderr?.on('data', (chunk: Buffer) => {
      complaint = (complaint + chunk.toString()).slice(-STDERR_KEPT);
    });
    this.exited = new Promise((resolve) => {
      process.once('exit', (code) => {
        this.#running = false;
        resolve({ code, complaint });
      });
    });
  }

  get running(): boolean {
    return this.#running;
  }

  /** All that the machine wrote so far. */
  serial(): string {
    return existsSync(this.serialFile) ? readFileSync(this.serialFile, 'utf8') : '';
  }

  /** The first match in the serial log. Rejects, with the log's end, when the machine goes off first or time is up. */
  async waitFor(pattern: RegExp, timeoutMs: number): Promise<RegExpExecArray> {
    const deadline = Date.now() + timeoutMs;
    for (;;) {
      const wasRunning = this.#running;
      const match = pattern.exec(this.serial());
      if (match !== null) return match;
      const end = this.serial().slice(-2_000);
      if (!wasRunning) {
        const { complaint } = await this.exited;
        throw new Error(`The machine went off before it said ${pattern}: ${complaint}\n${end}`);
      }
      if (Date.now() > deadline)
        throw new Error(`The machine did not say ${pattern} within ${timeoutMs} ms:\n${end}`);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }

  /** Pulls the plug. */
  async kill(): Promise<void> {
    if (this.#running) this.#process.kill('SIGKILL');
    await this.exited;
  }
}

/** Starts a machine; it boots from the first disk. */
export function bootMachine(options: QemuOptions): QemuMachine {
  closeSync(openSync(options.serialFile, 'a'));
  const qemu = [
    'qemu-system-x86_64',
    ...['-name', options.name],
    ...['-accel', 'tcg,thread=multi', '-nographic', '-no-reboot', '-monitor', 'none'],
    ...['-m', String(options.memoryMiB ?? DEFAULT_MEMORY_MIB), '-smp', String(options.cpus ?? 1)],
    ...['-chardev', `file,id=serial,path=${escaped(options.serialFile)},append=on`],
    ...['-serial', 'chardev:serial', '-nic', 'none'],
    ...options.disks.flatMap(diskArguments),
    ...(options.arguments ?? []),
  ];
  // The kernel kills QEMU when its parent dies, so that no machine outlives a test that was killed.
  const process = spawn('setpriv', ['--pdeathsig', 'SIGKILL', ...qemu], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  return new QemuMachine(process, options.serialFile);
}

/** What the machine flushes is not synced here: a machine that is killed or reset loses nothing by that, only this host would. */
function diskArguments(disk: QemuDisk, index: number): string[] {
  const id = `disk${index}`;
  const format = disk.format === 'vpc' ? 'vpc,force-size-calc=current_size' : 'raw';
  const drive = `file=${escaped(disk.path)},format=${format},if=none,id=${id},cache=unsafe`;
  const boot = index === 0 ? ',bootindex=0' : '';
  const devices = {
    ide: ['-device', `ide-hd,drive=${id},bus=ide.${index}${boot}`],
    virtio: ['-device', `virtio-blk-pci,drive=${id}${boot}`],
    scsi: [
      ...['-device', `virtio-scsi-pci,id=controller${index}`],
      ...['-device', `scsi-hd,drive=${id},bus=controller${index}.0,lun=${disk.lun ?? 0}${boot}`],
    ],
  };
  return ['-drive', drive, ...devices[disk.bus]];
}

/** In QEMU's option lists a comma is doubled. */
function escaped(file: string): string {
  return file.replaceAll(',', ',,');
}
