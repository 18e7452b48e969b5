#!/usr/bin/env bash
# The installed environment as an archive beside the store, so that a node unpacks it instead of installing 6 GB:
#   environment.sh restore PLACE   before the installation: unpack it, where there is one for these versions
#   environment.sh keep PLACE      after the installation, on the head: write it, where there is none
# PLACE is s3://BUCKET/FOLDER, gs://BUCKET/FOLDER, or a folder that all nodes see.
#
# The installation after `restore` adds what is missing. So whatever fails here costs time alone: it is told, and the exit
# status is 0. The archive's name holds a digest of the versions: when they change, the head writes another one.
set -uo pipefail

what=$1 place=${2%/}
parts=(.local/bin/uv .local/share/uv/python scale_ray_venv)  # the last one is complete when it is there
cd ~ || exit 0
digest=$(cat scale_ray/pyproject.toml scale_ray/constraints.txt | sha256sum | cut -c 1-16)
archive=$place/$(uname -m)-$digest.tar.zst
work=$(mktemp -d .environment.XXXXXX) || exit 0  # on the disk of the home, so that parts are moved and not copied
trap 'rm -rf "$work"' EXIT

blocks=--blocking-factor=2048  # of 512 bytes: with tar's default, the system takes twice the time

say() {
  echo "$1" >&2
}

exists() {
  case $place in
    s3://*) aws s3 ls "$archive" ;;
    gs://*) gcloud storage ls "$archive" ;;
    *) test -e "$archive" ;;
  esac
}

fetch() {
  case $place in
    s3://*) aws s3 cp --only-show-errors "$archive" - ;;
    gs://*) gcloud storage cat "$archive" ;;
    *) cat "$archive" ;;
  esac
}

send() {
  case $place in
    s3://*) aws s3 cp --only-show-errors "$1" "$archive" ;;
    gs://*) gcloud storage cp --quiet "$1" "$archive" ;;
    *) mkdir -p "$place" && cp "$1" "$archive.$$" && mv "$archive.$$" "$archive" ;;
  esac
}

restore() {
  local part
  test -e scale_ray_venv && return
  exists > /dev/null || { say "no $archive: the packages are installed from the index"; return; }
  fetch | tar "$blocks" --extract --zstd --directory "$work" ||
    { say "$archive cannot be unpacked: the packages are installed from the index"; return; }
  for part in "${parts[@]}"; do
    test -e "$work/$part" && test ! -e "$part" && mkdir -p "$(dirname "$part")" && mv "$work/$part" "$part"
  done
}

keep() {
  local part there=()
  exists > /dev/null && return
  for part in "${parts[@]}"; do
    test -e "$part" && there+=("$part")  # uv has no Python of its own where the machine has a fitting one
  done
  # Else every node would compile the modules that it imports.
  scale_ray_venv/bin/python -m compileall -q -j 0 scale_ray_venv/lib > /dev/null
  { tar "$blocks" --create --use-compress-program "zstd --threads=0 --quiet" --file "$work/archive" "${there[@]}" &&
    send "$work/archive"; } ||
    say "$archive cannot be written: further nodes install their packages from the index"
}

case $what in
  restore) restore ;;
  keep) keep ;;
  *) say "$what: neither restore nor keep" ;;
esac
exit 0
