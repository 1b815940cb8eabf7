/** Workloads that write in every way a machine does (the harsher run behind design §5). */
export const workloads: Record<string, (mount: string) => string[]> = {
  'direct random writes and file copies': (mount) => [
    `fio --thread --name=w --directory=${mount} --size=48m --rw=randwrite --bs=4k --ioengine=psync --direct=1 --time_based --runtime=200 --rate_iops=1500 --fsync=64`,
    `i=0; while :; do echo line$i >> ${mount}/log; cp /bin/bash ${mount}/f$((i%25)); [ $((i%7)) = 0 ] && rm -f ${mount}/f$(((i+12)%25)); sync ${mount}/log; i=$((i+1)); done`,
  ],
  'mmap and buffered writes': (mount) => [
    `fio --thread --name=m --directory=${mount} --size=32m --rw=randwrite --bs=4k --ioengine=mmap --time_based --runtime=200 --rate_iops=3000`,
    `fio --thread --name=b --directory=${mount} --size=32m --rw=randwrite --bs=4k-64k --ioengine=psync --time_based --runtime=200 --rate=30m`,
  ],
  'allocation, zeroing and discards': (mount) => [
    `i=0; while :; do f=${mount}/fa$((i%200)); rm -f $f; fallocate -l 24K $f; dd if=/dev/urandom of=$f bs=4k count=1 seek=2 conv=notrunc,fsync status=none; fallocate -z -o 4096 -l 8192 $f; [ $((i%50)) = 0 ] && { fallocate -z -l 1M ${mount}/fz; }; i=$((i+1)); done`,
    `while :; do fstrim ${mount}; sleep 0.15; done`,
    `i=0; while :; do cp /bin/bash ${mount}/g$((i%15)); rm -f ${mount}/g$(((i+7)%15)); i=$((i+1)); sleep 0.02; done`,
  ],
};
