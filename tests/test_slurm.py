"""The Slurm scripts, with stand-ins for the commands that only a cluster has."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def cluster(tmp_path):
    """An environment as in a job of two tasks on one node."""
    tools = tmp_path / "bin"
    tools.mkdir()
    # Like Slurm's: starts the command once for each task.
    srun = """shift
for id in 0 1; do SLURM_PROCID=$id SLURM_LOCALID=$id SLURM_NODEID=0 "$@" & done
wait
"""
    commands = {
        "srun": srun,
        "scontrol": f'echo "$@" >> {tmp_path}/scontrol.log',
        "eenet": f'exec {sys.executable} -m eenet "$@"',
        "python": f'exec {sys.executable} "$@"',
    }
    for name, text in commands.items():
        (tools / name).write_text(f"#!/bin/bash\n{text}\n")
        (tools / name).chmod(0o755)
    slurm = {
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NAME": "eenet",
        "SLURM_JOB_NODELIST": "localhost",
        "SLURM_NODELIST": "localhost",
        "SLURM_NNODES": "1",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2",
    }
    return {**os.environ, **slurm, "PATH": f"{tools}:{os.environ['PATH']}", "NCCL_DEBUG": ""}


@pytest.mark.slow
def test_a_job_is_requeued_goes_on_and_serves_an_array_of_budgets(cluster, tmp_path):
    run = tmp_path / "run"
    command = ["bash", "experiments/slurm/train.sh", "tests/conf/tiny.yaml", str(run)]
    command += ["--stage1.trainer.accelerator", "cpu"]
    job = subprocess.Popen(command, cwd=ROOT, env=cluster, start_new_session=True)
    while not (run / "stage1" / "checkpoints" / "last.ckpt").is_file():
        assert job.poll() is None
        time.sleep(0.1)
    os.kill(job.pid, signal.SIGUSR1)  # what --signal=B:USR1@120 does
    time.sleep(3)
    os.killpg(job.pid, signal.SIGKILL)  # what requeueing does
    assert (tmp_path / "scontrol.log").read_text() == "requeue 7\n"
    assert not (run / "stage1" / "done.json").exists()
    first = (run / "stage1" / "wandb-id.txt").read_text()

    subprocess.run(command, cwd=ROOT, env=cluster, check=True)
    assert (run / "stage2" / "curve.csv").is_file()
    assert (run / "stage1" / "wandb-id.txt").read_text() == first
    assert len(list((run / "stage1" / "wandb").glob(f"offline-run-*-{first}"))) >= 2

    array = ["bash", "experiments/slurm/budgets.sh", str(run)]
    env = {**cluster, "SLURM_ARRAY_TASK_ID": "13"}
    subprocess.run(array, cwd=ROOT, env=env, check=True)
    lines = (run / "budgets" / "0.7-1" / "curve.csv").read_text().splitlines()
    assert len(lines) == 1 + 3
    assert all(",0.7," in line for line in lines[1:])
