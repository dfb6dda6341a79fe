#!/bin/busybox sh
# The first program of a virtual host: mounts the machine's own files, so that
# what is installed on the machine is installed here, and lets the agent take over.
#
# Licensed under the Apache License, Version 2.0; see the file LICENSE.
set -e
/bin/busybox --install -s /bin
export PATH=/bin
mkdir -p /proc /sys /dev /machine /changes /root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for module in /modules/*; do
    insmod "$module"
done

# ADDRESS, AGENT, CGROUP, SHARE and TMPDIR, as VirtualHost chose them.
. /settings

plan9=trans=virtio,version=9p2000.L,msize=507904
# What is changed stays in memory and is gone with the host.
mount -t 9p -o "ro,$plan9,cache=loose" machine /machine
mount -t tmpfs -o mode=755,size=75% changes /changes
mkdir /changes/upper /changes/work
mount -t overlay -o lowerdir=/machine,upperdir=/changes/upper,workdir=/changes/work machine /root

mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs -o mode=755 tmpfs /root/run
mkdir -p /root/run/lock "/root$TMPDIR"
mount -t 9p -o "$plan9,cache=none" share "/root$SHARE"

case $CGROUP in
v2)
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
        echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control
    done
    ;;
v1)
    mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
    for controllers in cpuset cpu,cpuacct memory blkio devices freezer perf_event; do
        mkdir "/sys/fs/cgroup/$controllers"
        mount -t cgroup -o "$controllers" cgroup "/sys/fs/cgroup/$controllers"
    done
    ;;
esac

ifconfig lo 127.0.0.1 up
ifconfig eth0 "$ADDRESS" up
hostname virtual-host
# There is no name server: without these, a name costs seconds until it is given up.
echo "127.0.0.1 localhost virtual-host" >/root/etc/hosts
: >/root/etc/resolv.conf
mount -o move /proc /root/proc
mount -o move /sys /root/sys
mount -o move /dev /root/dev
eval exec switch_root /root $AGENT
