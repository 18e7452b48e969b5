#!/usr/bin/env bash
# Three machines on one: this one, the laptop (10.77.0.254), and beside it head (10.77.0.1) and worker (10.77.0.2).
# Each has its own processes, network, host name, /run, /tmp/ray and home, so that `ray stop` finds its own Ray and no
# other. They share the disk, as machines share NFS. Says `ready`; all of it ends when standard input does, or with this
# process.
#
#   unshare --pid --fork --mount-proc --net --mount --uts --kill-child machines.sh FOLDER SERVE PORT
#
# FOLDER becomes the parent of the homes. On each machine the script `SERVE.sh FOLDER NAME`, beside this one, starts its
# servers; those of head and worker listen at PORT.
set -euo pipefail

become() { # NAME
  hostname "$1"
  ip link set lo up
  mkdir -p "$folder/$1" /tmp/ray
  sed "s|^root:.*|root:x:0:0:root:$folder/$1:/bin/bash|" /etc/passwd > "$folder/$1.passwd"
  mount --bind "$folder/$1.passwd" /etc/passwd
  mount --bind "$folder/hosts" /etc/hosts
  mount -t tmpfs tmpfs /tmp/ray
  mount -t tmpfs tmpfs /run # what servers and `ip netns` write
  bash "$(dirname "$0")/$serve.sh" "$folder" "$1"
}

folder=$1 serve=$2 port=$3
if (($# == 4)); then
  become "$4"
  # A shell stays process 1: it buries the orphans that Ray's daemons leave.
  sleep infinity & wait
  exit
fi

printf '%s\n' '127.0.0.1 localhost' '10.77.0.254 laptop' '10.77.0.1 head' '10.77.0.2 worker' > "$folder/hosts"
become laptop
ip link add bridge type bridge
ip addr add 10.77.0.254/24 dev bridge
ip link set bridge up
number=0
for name in head worker; do
  number=$((number + 1))
  ip netns add "$name"
  ip link add "$name" type veth peer name eth0 netns "$name"
  ip link set "$name" master bridge up
  ip -n "$name" addr add "10.77.0.$number/24" dev eth0
  ip -n "$name" link set eth0 up
  ip -n "$name" route add default dev eth0 # leads nowhere; Ray takes its own address from it
  ip netns exec "$name" unshare --pid --fork --mount-proc --mount --uts --kill-child bash "$0" "$@" "$name" &
done
for number in 1 2; do
  until (: < "/dev/tcp/10.77.0.$number/$port") 2> /dev/null; do sleep 0.1; done
done
echo ready
cat > /dev/null
