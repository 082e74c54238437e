"""A run folder that was moved, copied, damaged, or that two processes want at once."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
import torch
import yaml

from eenet.callbacks.reproducibility import BestCheckpoint
from eenet.cli import main
from eenet.cli.stage import checkpoint_to_resume
from eenet.cli.stage_run import StageRun
from eenet.files import hold
from eenet.modules import MultiExitModule
from eenet.outputs import load_outputs
from eenet.run_folder import RunFolder
from eenet.stage_folder import StageFolder

SMALL = ["--config", "tests/conf/tiny.yaml", "--run_dir"]


def eenet(*words):
    command = [sys.executable, "-m", "eenet", *map(str, words)]
    return subprocess.run(command, env=os.environ, capture_output=True, text=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    result = eenet("pipeline", *SMALL, folder)
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture
def run(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "tiny"))


def content(folder):
    """Digests of all files but what a clock measured."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).digest() for p in files}


class Executed(Exception):
    """A stage would run."""


def pipeline(run, *words):
    """What the pipeline would run: a stage and what of it, or its refusal."""

    def execute(stage, todo, *_):
        raise Executed(f"{stage.name} {todo}")

    with mock.patch.object(StageRun, "execute", execute):
        try:
            main(["pipeline", *SMALL, str(run), *words])
        except Executed as executed:
            return str(executed)
        except SystemExit as end:
            return {2: "refused"}[end.code]
    return "complete"


CHANGES = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path: path.write_bytes(b""),
    "flipped": lambda path: path.write_bytes(flipped(path.read_bytes())),
    "deleted": lambda path: path.unlink(),
}


def flipped(data):
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize("change", CHANGES)
def test_each_changed_file_is_noticed_and_what_follows_from_it_made_again(run, change, capsys):
    expected = {
        "stage1/checkpoints/best.ckpt": "refused",  # nothing else is certain to hold the network
        "stage1/outputs/val.safetensors": "stage1 outputs",
        "stage1/outputs/test.safetensors": "stage1 outputs",
        "stage1/outputs/cal.safetensors": "stage1 outputs",
        "stage1/costs.json": "stage1 outputs",
        "stage1/done.json": "stage1 all" if change == "deleted" else "refused",
        "stage2/checkpoints/best.ckpt": "stage2.new all",
        "stage2/curve.csv": "stage2.new all",
        "stage2/curve.json": "stage2.new all",
        "stage2/curve.png": "stage2.new all",
        "stage2/done.json": "stage2.new all" if change == "deleted" else "refused",
    }
    if change == "flipped":  # any statement of a record may then be wrong: what it is of runs again
        expected = {name: x for name, x in expected.items() if not name.endswith("done.json")}
    else:  # as a changed file
        some = ("best.ckpt", "val.safetensors", "done.json")
        expected = {name: x for name, x in expected.items() if name.endswith(some)}
    for name, wanted in expected.items():
        path = run / name
        before = path.read_bytes()
        CHANGES[change](path)
        assert pipeline(run) == wanted, name
        said = capsys.readouterr()
        if not name.endswith("done.json"):
            assert str(path) in said.out + said.err
        path.write_bytes(before)
    assert pipeline(run) == "complete"


@pytest.mark.parametrize("name", ["config.yaml", "identity.json"])
@pytest.mark.parametrize("change", ["empty", "deleted"])
def test_what_follows_from_the_config_is_written_again(run, name, change):
    for stage in ("stage1", "stage2"):
        path = run / stage / name
        before = yaml.safe_load(path.read_text())
        CHANGES[change](path)
        if (name, change) == ("config.yaml", "deleted"):
            with pytest.raises(FileNotFoundError, match=r"config\.yaml is missing: put it back"):
                _ = StageFolder(path.parent).config
        assert pipeline(run) == "complete"
        restored = yaml.safe_load(path.read_text())
        for config in (before, restored):
            config["trainer"].pop("logger", None)
        assert restored == before


def test_a_network_that_is_not_the_one_trained_is_never_used(run, capsys):
    path = run / "stage1/checkpoints/best.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    for name in list(checkpoint["state_dict"])[:3]:
        checkpoint["state_dict"][name].neg_()
    torch.save(checkpoint, path)
    assert pipeline(run) == "refused"
    assert "--overwrite true" in capsys.readouterr().err
    with pytest.raises(ValueError, match="has changed since the stage wrote it"):
        RunFolder(run).network()
    assert pipeline(run, "--overwrite", "true") == "stage1 all"
    assert (run / "stage1.1/checkpoints/best.ckpt").is_file()


def test_wrong_settings_of_stage_2_leave_a_finished_run_as_it_is(run, capsys):
    before = content(run)
    for flag, value, named in (
        ("model.init_args.budgets", "[0.01, 0.5]", "stage2.model.budgets"),
        ("data.init_args.costs", "[1, 2]", "stage2.data"),
        ("data.init_args.cost_matrix", "[[0, 1], [1, 0]]", "stage2.data"),
    ):
        assert pipeline(run, f"--stage2.{flag}", value) == "refused"
        assert named in capsys.readouterr().err
    # A fit that fails.
    assert pipeline(run, "--stage2.model.init_args.budgets", "[0.7]") == "stage2.new all"
    assert content(run) == before


def test_what_decides_no_result_is_no_other_config(run):
    flags = ["accelerator", "cpu"], ["log_every_n_steps", "7"], ["enable_progress_bar", "true"]
    for name, value in flags:
        assert pipeline(run, f"--stage1.trainer.{name}", value) == "complete"
    assert pipeline(run, "--stage1.data.init_args.num_workers", "1") == "complete"
    assert pipeline(run, "--stage1.trainer.logger", "true") == "complete"
    assert pipeline(run, "--stage1.seed_everything", "5") == "refused"


def test_a_second_pipeline_in_the_folder_is_refused(run, capsys):
    with hold(run):
        assert pipeline(run) == "refused"
    assert f"in use by process {os.getpid()} on " in capsys.readouterr().err
    assert pipeline(run) == "complete"


def test_a_file_in_the_place_of_a_stage_is_named(tmp_path, capsys):
    (tmp_path / "stage1").write_text("")
    assert pipeline(tmp_path) == "refused"
    assert f"{tmp_path}/stage1 is a file" in capsys.readouterr().err


def test_a_run_points_to_nothing_of_the_place_where_it_was_made(finished):
    texts = [path for path in finished.rglob("*") if path.suffix in (".yaml", ".json", ".csv")]
    assert len(texts) > 8
    assert not [path for path in texts if str(finished.parent) in path.read_text()]
    for stage in ("stage1", "stage2"):
        checkpoint = torch.load(finished / stage / "checkpoints/best.ckpt", weights_only=True)
        assert str(finished.parent) not in str(checkpoint["callbacks"])


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_a_copy_is_tested_in_its_own_folder(finished, run, stage):
    before = content(finished)
    (run / "stage2/curve.csv").unlink()
    config = run / stage / "config.yaml"
    main(["test", "--config", str(config), "--trainer.logger", "false"])
    assert (run / "stage2/curve.csv").is_file() == (stage == "stage2")
    assert content(finished) == before
    shutil.rmtree(run)


def test_a_moved_pipeline_goes_by_its_own_config(finished, run):
    before = content(finished)
    (run / "stage2/curve.csv").unlink()
    with mock.patch.object(StageRun, "execute", side_effect=Executed), pytest.raises(Executed):
        main(["pipeline", "--config", str(run / "pipeline.yaml")])
    assert content(finished) == before


def test_a_trial_leaves_the_run_as_it_is_and_can_be_served(finished, tmp_path):
    before = content(finished)
    trial = tmp_path / "trial"
    command = ["bash", "experiments/sweeps/trial.sh", str(finished)]
    command += ["--model.init_args.budgets", "[0.7]", "--trainer.logger", "false"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "EENET_TRIAL_DIR": str(trial), "WANDB_RUN_ID": "t1"}
    result = subprocess.run(command, env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert content(finished) == before
    policy = RunFolder(finished, stage2=trial).policies()["eenet"]
    x = load_outputs(finished / "stage1/outputs/test.safetensors")
    exits = policy.at_fraction(0.7).decide(x.evidence())
    (row,) = [
        r for r in json.loads((trial / "curve.json").read_text())["rows"] if r["policy"] == "eenet"
    ]
    assert x.relative_costs[exits].mean().item() == pytest.approx(row["cost"], abs=1e-6)


def test_the_best_score_survives_a_move(tmp_path):
    here, there = (BestCheckpoint(tmp_path / name, monitor="val/acc_mean") for name in "ab")
    best = str(tmp_path / "a" / "best.ckpt")
    here.best_model_path, here.best_k_models = best, {best: torch.tensor(0.7)}
    here.best_model_score = torch.tensor(0.7)
    there.load_state_dict(here.state_dict())
    assert there.best_model_score == 0.7
    assert there.best_model_path == str(tmp_path / "b" / "best.ckpt")
    assert list(there.best_k_models) == [there.best_model_path]
    assert here.state_key.startswith("ModelCheckpoint{")  # as in runs of earlier versions


def test_a_damaged_checkpoint_is_passed_over(run):
    folder = RunFolder(run).stage1
    assert checkpoint_to_resume(folder) == (str(folder.last), "")
    CHANGES["cut"](folder.last)
    assert checkpoint_to_resume(folder)[0] == str(folder.best)
    CHANGES["flipped"](folder.best)
    resume, why = checkpoint_to_resume(folder)
    assert resume is None
    assert "from scratch" in why
    folder.last.unlink()
    folder.best.unlink()
    assert checkpoint_to_resume(folder) == (None, "")


def test_a_fit_into_a_finished_stage_is_refused(run, capsys):
    before = content(run)
    for stage in ("stage1", "stage2"):
        with pytest.raises(SystemExit, match="2"):
            main(["fit", "--config", f"{run}/{stage}/config.yaml", "--trainer.max_epochs", "1"])
        assert f"{stage}' is the finished stage of a pipeline" in capsys.readouterr().err
    assert content(run) == before


def test_a_checkpoint_of_a_run_loads_without_its_network(run):
    module = MultiExitModule.load_from_checkpoint(run / "stage1/checkpoints/best.ckpt")
    for name, weight in RunFolder(run).network().state_dict().items():
        assert torch.equal(module.net.state_dict()[name], weight)
