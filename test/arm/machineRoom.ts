/** The machines that run: one QEMU each, over the disks of an emulated VM. */
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { appendFile, open } from 'node:fs/promises';
import { bootMachine, type QemuMachine } from '../machines/qemu.ts';
import { list, text } from './call.ts';
import type { EmulatorContext } from './context.ts';
import { ArmFailure } from './failure.ts';
import type { Resource } from './resources.ts';

const NO_FIRMWARE =
  'emulator: generation V2 boots by UEFI, and there is no UEFI here: nothing was started\n';

export class MachineRoom {
  readonly #context: EmulatorContext;
  readonly #machines = new Map<string, QemuMachine>();

  constructor(context: EmulatorContext) {
    this.#context = context;
  }

  async powerOn(vm: Resource): Promise<void> {
    if (this.#machines.get(vm.uid)?.running === true) return;
    const { settings } = this.#context;
    const [osDisk, ...dataDisks] = this.#disksOf(vm);
    if (osDisk === undefined) throw new ArmFailure(500, 'InternalServerError', 'no OS disk');
    if (settings.wipeBootSector) await wipeBootSector(this.#context.diskFile(osDisk.disk));
    if (settings.keepImported)
      for (const { disk } of [osDisk, ...dataDisks]) keepCopy(this.#context.diskFile(disk));
    vm.hidden.power = 'running';
    this.#context.resources.save();
    if (!settings.bootMachines) return;
    if (osDisk.disk.properties.hyperVGeneration === 'V2') {
      // To start it with a BIOS would show what Azure never does. It only seems to run, and a health check that listens fails.
      await appendFile(this.#context.serialFile(vm), NO_FIRMWARE);
      return;
    }
    const machine = bootMachine({
      name: vm.name,
      memoryMiB: settings.guestMemoryMiB,
      serialFile: this.#context.serialFile(vm),
      // As in Azure's generation 1: the OS disk on IDE, data disks by LUN on SCSI.
      disks: [
        { path: this.#context.diskFile(osDisk.disk), bus: 'ide' },
        ...dataDisks.map(({ disk, lun }) => ({
          path: this.#context.diskFile(disk),
          bus: 'scsi' as const,
          lun,
        })),
      ],
    });
    this.#machines.set(vm.uid, machine);
  }

  /** Also of a machine that is off. */
  async powerOff(vm: Resource, as: 'stopped' | 'deallocated'): Promise<void> {
    await this.#machines.get(vm.uid)?.kill();
    this.#machines.delete(vm.uid);
    vm.hidden.power = as;
    this.#context.resources.save();
  }

  power(vm: Resource): string {
    const machine = this.#machines.get(vm.uid);
    if (machine !== undefined && !machine.running) return 'stopped';
    return String(vm.hidden.power ?? 'starting');
  }

  /** Own process ids of the machines that run. */
  processes(): number[] {
    return [...this.#machines.values()].filter((one) => one.running).map((one) => one.pid);
  }

  /** All machines that were running when the emulator last ended. */
  async powerOnAgain(): Promise<void> {
    for (const vm of this.#context.resources.list({ type: 'Microsoft.Compute/virtualMachines' }))
      if (vm.hidden.power === 'running') await this.powerOn(vm);
  }

  async close(): Promise<void> {
    await Promise.all([...this.#machines.values()].map((machine) => machine.kill()));
    this.#machines.clear();
  }

  #disksOf(vm: Resource): { disk: Resource; lun: number }[] {
    const os = text(vm.properties, 'storageProfile', 'osDisk', 'managedDisk', 'id') ?? '';
    const data = list(vm.properties, 'storageProfile', 'dataDisks').map((one) => ({
      id: text(one, 'managedDisk', 'id') ?? '',
      lun: Number((one as { lun?: number }).lun ?? 0),
    }));
    return [{ id: os, lun: 0 }, ...data].map(({ id, lun }) => {
      const disk = this.#context.resources.get(id);
      if (disk === undefined) throw new ArmFailure(404, 'NotFound', `Disk ${id} is gone.`);
      return { disk, lun };
    });
  }
}

function keepCopy(file: string): void {
  if (!existsSync(`${file}.imported`))
    execFileSync('cp', ['--sparse=always', file, `${file}.imported`]);
}

async function wipeBootSector(file: string): Promise<void> {
  const disk = await open(file, 'r+');
  try {
    await disk.write(Buffer.alloc(512, 0xff), 0, 512, 0);
  } finally {
    await disk.close();
  }
}
