#!/usr/bin/env bash
# Three machines on one: this one, the laptop, and beside it head (10.77.0.1) and worker (10.77.0.2), whose root takes SSH.
# Each has its own processes, network, host name, /tmp/ray and home, so that `ray stop` finds its own Ray and no other.
# They share the disk, as machines share NFS. Says `ready`; all of it ends when standard input does, or with this process.
#
#   unshare --pid --fork --mount-proc --net --mount --uts --kill-child machines.sh FOLDER
#
# FOLDER has key and key.pub, for all who log in and for the servers too, and becomes the parent of the homes.
set -euo pipefail

become() { # NAME
  hostname "$1"
  ip link set lo up
  mkdir -p "$folder/$1" /tmp/ray
  sed "s|^root:.*|root:x:0:0:root:$folder/$1:/bin/bash|" /etc/passwd > "$folder/$1.passwd"
  mount --bind "$folder/$1.passwd" /etc/passwd
  mount -t tmpfs tmpfs /tmp/ray
  mount -t tmpfs tmpfs /run # what sshd and `ip netns` write
  mkdir /run/sshd
}

folder=$1
if (($# == 2)); then
  become "$2"
  # A shell stays process 1: it buries the orphans that Ray's daemons leave.
  /usr/sbin/sshd -D -e -f /dev/null -h "$folder/key" -o "AuthorizedKeysFile=$folder/key.pub" \
    -o StrictModes=no -o UsePAM=no -o PidFile=none 2> "$folder/$2.sshd.log" &
  wait
  exit
fi

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
  ip netns exec "$name" unshare --pid --fork --mount-proc --mount --uts --kill-child bash "$0" "$folder" "$name" &
done
for number in 1 2; do
  until (: < "/dev/tcp/10.77.0.$number/22") 2> /dev/null; do sleep 0.1; done
done
echo ready
cat > /dev/null
