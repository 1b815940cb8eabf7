/** A sysfs in a directory, as the kernel lays it out: partitions inside of their disk, everything by name under class/block. */
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { Sysfs } from '../../platform/linux/sysfs.ts';

export interface FakeDevice {
  /** Of what it is made. */
  on?: string[];
  /** Driven by requests, unless said otherwise. */
  bioBased?: boolean;
  attributes?: Record<string, string>;
  /** Of 1024 sectors each, one behind the other. */
  partitions?: string[];
}

function put(directory: string, attributes: Record<string, string>): void {
  for (const [name, value] of Object.entries(attributes)) {
    mkdirSync(path.dirname(path.join(directory, name)), { recursive: true });
    writeFileSync(path.join(directory, name), `${value}\n`);
  }
}

/** `root`: an empty directory. Links go both ways of a stack. */
export function fakeSysfs(root: string, devices: Record<string, FakeDevice>): Sysfs {
  for (const folder of ['block', 'class/block', 'devices'])
    mkdirSync(path.join(root, folder), { recursive: true });
  const link = (target: string, name: string) => symlinkSync(target, path.join(root, name));
  for (const [name, { bioBased, attributes, partitions = [] }] of Object.entries(devices)) {
    const directory = path.join(root, 'devices', name);
    const plain = { size: '2048', ro: '0', hidden: '0', 'queue/zoned': 'none' };
    put(directory, { ...plain, 'queue/iostats': '1', ...attributes });
    for (const folder of ['holders', 'slaves', ...(bioBased === true ? [] : ['mq/0'])])
      mkdirSync(path.join(directory, folder), { recursive: true });
    link(directory, `block/${name}`);
    link(directory, `class/block/${name}`);
    for (const [index, partition] of partitions.entries()) {
      const inside = path.join(directory, partition);
      put(inside, { partition: String(index + 1), start: String(index * 1024), size: '1024' });
      mkdirSync(path.join(inside, 'holders'));
      link(inside, `class/block/${partition}`);
    }
  }
  for (const [name, { on = [] }] of Object.entries(devices))
    for (const below of on) {
      link(path.join(root, 'class/block', below), `class/block/${name}/slaves/${below}`);
      link(path.join(root, 'class/block', name), `class/block/${below}/holders/${name}`);
    }
  return new Sysfs(root);
}
