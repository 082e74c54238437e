#!/bin/bash
# A pipeline on one node or several, one process per GPU:
#   sbatch experiments/slurm/train.sh CONFIG RUN_DIR [flags of `eenet pipeline`]
#   sbatch --nodes=4 experiments/slurm/train.sh imagenet/msdnet35 runs/imagenet
# Submitting it again goes on where it stopped; what is complete is skipped.
#SBATCH --job-name=eenet
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
#SBATCH --signal=B:USR1@120
set -euo pipefail
config=$1 run=$2
shift 2

# Time is nearly up: back into the queue, to go on from the last finished epoch and in the same
# W&B run. Preempted jobs are requeued by Slurm itself.
trap 'scontrol requeue "$SLURM_JOB_ID"' USR1

eenet pipeline --config "$config" --run_dir "$run" --launcher "srun --kill-on-bad-exit=1" \
    --stage1.trainer.num_nodes "$SLURM_NNODES" \
    --stage1.trainer.devices "$SLURM_NTASKS_PER_NODE" \
    --stage1.trainer.strategy ddp "$@" &
wait $!
