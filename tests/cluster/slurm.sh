# SLURM: the laptop controls it and submits, head and worker are its nodes. FOLDER has munge.key, slurm.conf, cgroup.conf.
set -euo pipefail
folder=$1 name=$2 PATH=$PATH:/usr/sbin
mkdir /run/munge
munged --force --key-file="$folder/munge.key" --socket=/run/munge/munge.socket.2 --pid-file=/run/munge/pid \
  --seed-file=/run/munge/seed --log-file="$folder/$name.munged.log" 2> "$folder/$name.munged.err"
if [[ $name == laptop ]]; then
  slurmctld -f "$folder/slurm.conf" -L "$folder/slurmctld.log"
else
  slurmd -f "$folder/slurm.conf" -N "$name" -L "$folder/$name.slurmd.log"
fi
