#!/bin/bash
# One run on several nodes of a Slurm cluster:
#   sbatch --nodes=8 recipes/slurm.sh s15era train.batch_size=512 parallel.data=8 parallel.shard=8
# The words are those of `coterie train`; `coterie plan … --gpus 64 --nodes 8` proposes a layout.
# Runs and cache must lie on a file system that all nodes see.
#SBATCH --job-name=coterie
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
set -euo pipefail

if [ "$#" -eq 0 ]; then
  echo "Say what to train: sbatch recipes/slurm.sh PRESET [key=value …]" >&2
  exit 2
fi
# The first node of the job keeps the rendezvous; a job's number makes its port its own.
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)  # reads to the end: head would end scontrol by SIGPIPE
port=$((29500 + SLURM_JOB_ID % 1000))
# Processes of a node: its GPUs, or DEVICES where there are none.
devices=${DEVICES:-${SLURM_GPUS_ON_NODE:-1}}
# A job that Slurm queues again keeps its number: it goes on with the run of that name.
name=${RUN_NAME:-slurm-$SLURM_JOB_ID}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((SLURM_CPUS_PER_TASK / devices > 0 ? SLURM_CPUS_PER_TASK / devices : 1))}

words=("$@" --name "$name")
if [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ]; then
  words=("$name" --resume)
fi
srun --kill-on-bad-exit=1 coterie train "${words[@]}" \
  --devices "$devices" --nodes "$SLURM_NNODES" --rendezvous "$first:$port"
