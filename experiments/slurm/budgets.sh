#!/bin/bash
# Policies for many budgets and seeds on one trained network, a task for each pair:
#   sbatch --dependency=afterok:JOB_OF_TRAIN experiments/slurm/budgets.sh RUN_DIR
# Results: RUN_DIR/budgets/BUDGET-SEED/curve.csv. Stage 1 is shared and never trained again.
#SBATCH --job-name=eenet-budgets
#SBATCH --array=0-39
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=2
#SBATCH --time=01:00:00
#SBATCH --requeue
#SBATCH --output=%x-%A-%a.log
set -euo pipefail
run=$1
budgets=(0.2 0.3 0.4 0.5 0.6 0.7 0.8 0.9)
budget=${budgets[SLURM_ARRAY_TASK_ID % ${#budgets[@]}]}
seed=$((SLURM_ARRAY_TASK_ID / ${#budgets[@]}))

folder=$run/budgets/$budget-$seed
# Done, and on the network that the run holds now.
if cmp -s "$run/stage1/done.json" "$folder/network.json"; then
    exit 0
fi
python -m eenet.cli.stage --config "$run/stage2/config.yaml" --trainer.default_root_dir "$folder" \
    --trainer.logger false --trainer.devices 1 \
    --model.init_args.budgets "[$budget]" --seed_everything "$seed"
cp "$run/stage1/done.json" "$folder/network.json"
