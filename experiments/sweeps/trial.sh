#!/bin/bash
# One trial of a sweep: policies on the exit outputs of a finished pipeline, in a folder of its own.
#   bash experiments/sweeps/trial.sh RUN_DIR [flags of stage 2]
# The network is not trained again. Flags come last, so that they win over the run's config.
# `eenet sweep` says where a trial belongs; under `wandb agent` it goes beside the run's stages.
set -euo pipefail
run=$1
shift
python -m eenet.cli.stage --config "$run/stage2/config.yaml" \
    --trainer.default_root_dir "${EENET_TRIAL_DIR:-$run/sweep/${WANDB_RUN_ID:-local}}" "$@"
