"""Killed at any moment, the pipeline goes on and ends as if nothing had happened."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from eenet.outputs import load_outputs

ROOT = Path(__file__).parents[1]
KILLS = 50


def start(folder, log):
    command = [sys.executable, "-m", "eenet", "pipeline", "--config", "tests/conf/tiny.yaml"]
    command += ["--run_dir", str(folder)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, env=env, stdout=log, stderr=log, start_new_session=True
    )


def results(folder):
    """All that must not depend on interruptions: everything but what a clock measured."""
    found = {}
    for name in ("stage1/checkpoints/best", "stage1/checkpoints/last", "stage2/checkpoints/best"):
        state = torch.load(folder / f"{name}.ckpt", weights_only=True)["state_dict"]
        found |= {f"{name}/{key}": value for key, value in state.items()}
    for split in ("val", "test", "cal"):
        outputs = load_outputs(folder / "stage1" / "outputs" / f"{split}.safetensors")
        for name in ("logits", "labels", "costs"):
            found[f"{split}/{name}"] = getattr(outputs, name)
    curve = json.loads((folder / "stage2" / "curve.json").read_text())
    for number, row in enumerate(curve["rows"]):
        values = [v for name, v in row.items() if not name.startswith(("policy", "ms", "joules"))]
        found[f"curve/{number}/{row['policy']}"] = torch.tensor(values, dtype=torch.float64)
    return found


@pytest.mark.kills
def test_the_end_is_the_same_whenever_it_was_killed(tmp_path):
    log = (tmp_path / "log").open("w+")
    begun = time.monotonic()
    assert start(tmp_path / "straight", log).wait() == 0
    duration, expected = time.monotonic() - begun, results(tmp_path / "straight")
    draw, kills, runs = random.Random(0), [], 0
    while len(kills) < KILLS:
        runs += 1
        folder = tmp_path / f"run{runs}"
        while True:
            process, delay = start(folder, log), draw.uniform(0, duration)
            try:
                code = process.wait(delay)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                kills.append(delay)
                continue
            log.seek(0)
            assert code == 0, f"after {len(kills)} kills: {log.read()[-3000:]}"
            break
        found = results(folder)
        assert found.keys() == expected.keys()
        changed = [name for name, value in found.items() if not torch.equal(value, expected[name])]
        assert not changed, f"run {runs}, after {len(kills)} kills"
        assert not list(folder.rglob(".*.part"))
    print(f"{len(kills)} kills survived in {runs} runs of {duration:.0f} s")
