"""What is special about W&B and needs no pipeline around it."""

import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import wandb
from lightning.pytorch.loggers import WandbLogger

from eenet.callbacks.wandb import link_outputs
from tests.wandb_file import records


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "val.safetensors"
    path.write_bytes(b"exit outputs")
    return path


def test_exit_outputs_are_artifacts_of_the_run_that_wrote_them(tmp_path, monkeypatch, file):
    monkeypatch.setenv("WANDB_MODE", "offline")
    logger = WandbLogger(save_dir=tmp_path, group="digits", log_model=True)
    link_outputs([logger], [file], used=False)
    link_outputs([logger], [file], used=True)  # needs the server: left out
    logger.experiment.finish()
    (path,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    kinds: dict[str, list] = {}
    for _ in range(300):  # W&B's own process may still be writing
        kinds = {}
        for record in records(path):
            kinds.setdefault(record.WhichOneof("record_type"), []).append(record)
        if "exit" in kinds:
            break
        time.sleep(0.1)
    logged = [record.artifact for record in kinds.get("artifact", [])]
    assert [(a.name, a.type, a.use_after_commit) for a in logged] == [
        ("outputs-digits-val", "exit-outputs", False)
    ]


def test_stage_2_names_the_same_artifact_as_its_input(file):
    links: dict[str, list[wandb.Artifact]] = {"log": [], "use": []}
    run = SimpleNamespace(
        group="digits",
        settings=SimpleNamespace(_offline=False),
        log_artifact=links["log"].append,
        use_artifact=links["use"].append,
    )
    online = SimpleNamespace(_log_model=True, experiment=run)
    without = SimpleNamespace(_log_model=False)  # would fail if it were asked for its run
    link_outputs([without, online], [file], used=False)
    link_outputs([without, online], [file], used=True)
    ((logged,), (used,)) = links.values()
    assert (logged.name, logged.digest) == (used.name, used.digest)
