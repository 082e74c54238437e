"""Both stages in one run folder, on real data, through the real command."""

import csv
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from tests.wandb_file import contents
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

from eenet.callbacks.wandb import name_stage_run
from eenet.cli import main
from eenet.cli.lightning import stage_parser
from eenet.cli.pipeline import pipeline_parser
from eenet.cli.stage_run import StageRun
from eenet.outputs import load_outputs
from eenet.stage_folder import StageFolder

ROOT = Path(__file__).parents[2]


def run(*args, **environment):
    command = [sys.executable, "-m", "eenet", *args]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True
    )


def pipeline(folder, *more):
    return run("pipeline", "--config", "tests/conf/tiny.yaml", "--run_dir", str(folder), *more)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    result = pipeline(folder)
    assert result.returncode == 0, result.stderr
    assert "Test accuracy" in result.stdout
    assert re.search(r"epoch 2/2  loss \d.*val acc by exit( [\d.]+){3}%  0.0 min", result.stdout)
    assert not re.search("FLOPs|anonymous|srun|Tip", result.stdout + result.stderr)
    return folder


def test_the_exits_of_a_run_are_ranked(folder, capsys):
    main(["exits", str(folder)])
    assert "│ 1 2 3 │" in capsys.readouterr().out


def test_the_run_folder_holds_everything(folder):
    for name in ("stage1/costs.json", "stage2/curve.png", "stage2/curve.json", "pipeline.yaml"):
        assert (folder / name).stat().st_size > 100
    sizes = {
        split: load_outputs(folder / "stage1" / "outputs" / f"{split}.safetensors").num_samples
        for split in ("val", "test", "cal")
    }
    assert sizes == {"val": 400, "test": 500, "cal": 100}
    rows = list(csv.DictReader((folder / "stage2" / "curve.csv").open()))
    assert {row["policy"] for row in rows} == {"eenet", "max_prob", "entropy"}
    outputs = load_outputs(folder / "stage1" / "outputs" / "test.safetensors")
    full = outputs.answer_quality()[-1].mean().item()
    for row in rows:
        shares = [float(row[f"share_exit_{k}"]) for k in (1, 2, 3)]
        assert sum(shares) == pytest.approx(1)
        spent = sum(s * c for s, c in zip(shares, outputs.costs.tolist(), strict=True))
        assert float(row["cost"]) == pytest.approx(spent / outputs.costs[-1].item())
        assert abs(float(row["z"])) < 4
        assert 0.1 < float(row["quality"]) <= full + 0.2


def test_metrics_of_training_are_in_the_csv(folder):
    text = (folder / "stage1" / "logs" / "version_0" / "metrics.csv").read_text()
    for name in ("train/loss", "val/acc_exit_1", "val/acc_exit_3", "test/acc_exit_2"):
        assert name in text


def test_what_an_offline_wandb_run_wrote(folder):
    (stage1,) = (folder / "stage1" / "wandb").glob("offline-run-*")
    (stage2,) = (folder / "stage2" / "wandb").glob("offline-run-*")
    network, scheduler = contents(stage1), contents(stage2)
    kinds = ["CifarResNet", "Digits"]
    assert network["run"] == {"group": "tiny", "job_type": "stage1", "tags": kinds}
    assert scheduler["run"] == {"group": "tiny", "job_type": "stage2", "tags": kinds}
    assert {"val/acc_exit_1", "val/acc_exit_3", "test/acc_mean", "train/loss", "train/lr"} <= set(
        network["metrics"]
    )
    config = scheduler["config"]
    assert config["model"]["init_args"]["budgets"] == [0.5, 0.8]
    assert [config["network"], config["dataset"]] == kinds
    costs = json.loads((folder / "stage1" / "costs.json").read_text())
    for unit in ("macs", "params", "ms"):
        assert [config["exits"][f"exit_{k}"][unit] for k in (1, 2, 3)] == costs[unit]

    rows = list(csv.DictReader((folder / "stage2" / "curve.csv").open()))
    points = [row for row in scheduler["rows"] if "budget" in row]
    assert [point["budget"] for point in points] == [0.5, 0.8]
    for row in rows:
        (point,) = (p for p in points if p["budget"] == float(row["budget"]))
        for name, logged in (("quality", "accuracy"), ("cost", "cost")):
            key = f"curve/{row['policy']}/{logged}"
            assert point[key] == pytest.approx(float(row[name]))
            assert scheduler["over"][key] == "budget"
    logged = {name for name in scheduler["summary"] if name.startswith("test/")}
    assert logged == {
        f"test/{policy}/{name}"
        for policy in ("eenet", "max_prob", "entropy")
        for name in ("area", "accuracy_at_0_50", "accuracy_at_0_80")
    }
    assert 0.1 < scheduler["summary"]["test/eenet/area"] <= 1
    assert not any(name.startswith("curve/") for name in scheduler["summary"])
    media = stage2 / "files" / "media"
    (table,) = (media / "table" / "charts").glob("table_*.table.json")
    written = json.loads(table.read_text())
    assert written["columns"][:2] == ["policy", "budget"]
    assert len(written["data"]) == len(rows)
    (line_plot,) = (media / "table" / "charts").glob("accuracy_vs_cost_table_*.json")
    plotted = {row[1] for row in json.loads(line_plot.read_text())["data"]}
    assert plotted == {"eenet", "max_prob", "entropy"}
    assert len(list((media / "table" / "shares").glob("*.table.json"))) == 3
    assert list((media / "images" / "charts").glob("*.png"))


@pytest.mark.parametrize("drawn", ["12e45678", "12345678", "0x1f0000"])
def test_a_wandb_id_stays_a_string_whatever_is_drawn(tmp_path, monkeypatch, drawn):
    monkeypatch.setattr("uuid.uuid4", lambda: SimpleNamespace(hex=drawn))
    config = pipeline_parser().parse_args(["--config", "tests/conf/tiny.yaml"])
    stage = StageRun(StageFolder(tmp_path / "stage2"), config.stage2)
    name_stage_run(stage.config, stage.folder.path)
    (tmp_path / "stage2.yaml").write_text(stage.text())
    read = stage_parser().parse_path(str(tmp_path / "stage2.yaml"))
    assert read.trainer.logger[1].init_args.version == f"e{drawn}"


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_two_processes_give_what_one_gave(folder, tmp_path, stage):
    config = ["--config", f"{folder}/{stage}/config.yaml", "--trainer.logger=false"]
    config += [f"--ckpt_path={folder}/{stage}/checkpoints/best.ckpt"]
    config += ["--data.eval_batch_size=37"]  # 500 samples: seven batches of each process
    config += ["--trainer.devices=2", "--trainer.accelerator=cpu", "--trainer.strategy=ddp"]
    config += [f"--trainer.default_root_dir={tmp_path}"]
    tested, predicted = run("test", *config, NO_COLOR="1"), run("predict", *config)
    assert tested.returncode == predicted.returncode == 0, tested.stderr + predicted.stderr
    alone = load_outputs(folder / "stage1" / "outputs" / "test.safetensors")
    if stage == "stage1":
        together = load_outputs(tmp_path / "outputs" / "test.safetensors")
        torch.testing.assert_close(alone.logits, together.logits)
        assert torch.equal(alone.labels, together.labels)
        shown = re.findall(r"test/acc_exit_\d\s+│\s+([\d.e-]+)", tested.stdout)
        accuracies = alone.answer_quality().mean(1).tolist()
        assert [float(value) for value in shown] == pytest.approx(accuracies)
        (loss,) = re.findall(r"test/loss\s+│\s+([\d.e-]+)", tested.stdout)
        logged = csv.DictReader((folder / "stage1/logs/version_0/metrics.csv").open())
        assert float(loss) == pytest.approx(float([*logged][-1]["test/loss"]), rel=1e-5)
    else:
        alone, together = (
            json.loads((f / "curve.json").read_text()) for f in (folder / stage, tmp_path)
        )
        assert alone == together
        rows = list(csv.DictReader((tmp_path / "decisions.csv").open()))
        assert [int(row["sample"]) for row in rows] == [n for n in range(500) for _ in range(6)]


def test_a_finished_pipeline_is_skipped(folder):
    before = (folder / "stage2" / "curve.csv").stat().st_mtime_ns
    result = pipeline(folder)
    assert (result.returncode, "Stage 1" in result.stdout) == (0, False), result.stderr
    assert (folder / "stage2" / "curve.csv").stat().st_mtime_ns == before


def test_a_file_cut_off_is_named_and_made_anew(folder):
    path = folder / "stage1" / "outputs" / "val.safetensors"
    logits = load_outputs(path).logits.clone()  # not mapped: the file is cut under it
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    result = pipeline(folder)
    assert result.returncode == 0, result.stderr
    assert f"{path} has changed since the stage wrote it" in result.stdout
    assert torch.equal(load_outputs(path).logits, logits)


def test_other_budgets_keep_the_network_and_the_old_results(folder):
    trained = (folder / "stage1" / "checkpoints" / "best.ckpt").stat().st_mtime_ns
    (folder / "stage2" / ".curve.png.1.part").write_text("of a process that was killed")
    result = pipeline(folder, "--stage2.model.init_args.budgets=[0.6]")
    assert result.returncode == 0, result.stderr
    assert (folder / "stage1" / "checkpoints" / "best.ckpt").stat().st_mtime_ns == trained
    assert "Stage 1" not in result.stdout
    assert (folder / "stage2.1" / "curve.csv").is_file()
    assert not list(folder.rglob(".*.part"))
    rows = list(csv.DictReader((folder / "stage2" / "curve.csv").open()))
    assert {row["budget"] for row in rows} == {"0.6"}


def test_another_network_is_not_trained_over_this_one(folder):
    result = pipeline(folder, "--stage1.model.init_args.net.init_args.exits=[2,6]")
    assert result.returncode == 2
    assert "exits: [1, 3, 6] there, [2, 6] here" in result.stderr
    assert "--overwrite" in result.stderr


def test_a_run_killed_after_an_epoch_ends_with_the_same_network(folder, tmp_path):
    cut = tmp_path / "tiny"
    command = [sys.executable, "-m", "eenet", "pipeline", "--config", "tests/conf/tiny.yaml"]
    process = subprocess.Popen(
        [*command, "--run_dir", str(cut)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    last = cut / "stage1" / "checkpoints" / "last.ckpt"
    while not last.is_file():
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert torch.load(last, weights_only=True)["epoch"] == 0
    cut = cut.rename(tmp_path / "moved")
    result = pipeline(cut)
    assert result.returncode == 0, result.stderr
    name = "stage1/checkpoints/best.ckpt"
    resumed = torch.load(cut / name, weights_only=True)["state_dict"]
    straight = torch.load(folder / name, weights_only=True)["state_dict"]
    assert all(torch.equal(value, straight[key]) for key, value in resumed.items())


def test_a_budget_out_of_reach_is_refused_before_training(tmp_path):
    result = pipeline(tmp_path / "tiny", "--stage2.model.init_args.budgets=[0.05]")
    assert result.returncode == 2
    assert "cannot be met" in result.stderr
    assert not (tmp_path / "tiny" / "stage1").exists()


@pytest.mark.parametrize("sweep", sorted(Path("experiments/sweeps").glob("*.yaml")), ids=str)
def test_the_commands_of_sweeps_run(folder, sweep):
    """Expands a sweep file as W&B's agent does, which itself needs a server."""
    config = yaml.safe_load(sweep.read_text().replace("runs/cifar10-resnet20", str(folder)))
    chosen = {
        name: {"value": choices["values"][-1] if "values" in choices else choices["max"]}
        for name, choices in config["parameters"].items()
    }
    expanded = create_sweep_command_args({"args": chosen})
    command = []
    for word in config["command"]:
        command += expanded["args"] if word == "${args}" else [word]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "WANDB_RUN_ID": sweep.stem}
    result = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    trial = folder / "sweep" / sweep.stem
    written = yaml.safe_load((trial / "config.yaml").read_text())
    for name, choice in chosen.items():
        value = written
        for key in name.split("."):
            value = (value[-1] if isinstance(value, list) else value)[key]
        assert value == choice["value"]
    metrics = [*(trial / "logs").rglob("metrics.csv")]
    assert config["metric"]["name"] in metrics[0].read_text()


def test_a_sweep_runs_on_one_network_and_goes_on_after_a_kill(folder, tmp_path):
    def stage1():
        return {p: p.stat().st_mtime_ns for p in (folder / "stage1").rglob("*") if p.is_file()}

    text = Path("experiments/sweeps/budgets.yaml").read_text()
    config = yaml.safe_load(text.replace("runs/cifar10-resnet20", str(folder)))
    config["parameters"] = {"model.init_args.budgets": {"values": [[0.5], [0.6], [0.8]]}}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "eenet", "sweep", str(tmp_path / "sweep.yaml"), "--jobs=2"]
    command += [f"--output={tmp_path}/out"]
    before = stage1()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    while not (finished := list(tmp_path.glob("out/*/done.json"))):
        assert process.poll() is None
        time.sleep(0.02)
    process.terminate()  # with the third trial under way
    assert process.wait() == 143
    kept = {path: path.stat().st_mtime_ns for path in finished}
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    assert stage1() == before
    rows = list(csv.DictReader((tmp_path / "out" / "sweep.csv").open()))
    assert [row["model.init_args.budgets"] for row in rows] == ["[0.5]", "[0.6]", "[0.8]"]
    keys = set()
    for row in rows:
        trial = tmp_path / "out" / row["trial"]
        curve = list(csv.DictReader((trial / "curve.csv").open()))
        assert [f"[{line['budget']}]" for line in curve] == [row["model.init_args.budgets"]] * 3
        for line in curve:
            for name, logged in (("quality", "accuracy"), ("cost", "cost")):
                found = float(row[f"test/{line['policy']}/{logged}"])
                assert found == pytest.approx(float(line[name]))
        # A W&B run each, to be synchronised later: the same keys, whatever the budget.
        *_, offline = sorted(trial.glob(f"wandb/offline-run-*-{row['trial']}"))  # the last try
        summary = contents(offline)["summary"]
        budgets = json.loads(row["model.init_args.budgets"])
        assert [summary["test/budget"]] == pytest.approx(budgets)
        keys.add(tuple(sorted(name for name in summary if name.startswith("test/"))))
    assert len(keys) == 1


SMALL = ["--samples", "40", "--rounds", "1", "--policy", "max_prob"]
SCRIPTS = {
    "experiments/summarise.py": ([], {}),
    "experiments/budgets_that_hold.py": ([], {"LENGTH": 100, "DRAWS": 2}),
    "benchmarks/speedup.py": ([*SMALL, "--batch_sizes", "1", "16"], {}),
    "benchmarks/overhead.py": (SMALL, {"MODES": {}}),
    "benchmarks/fitting.py": (SMALL, {}),
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_beside_the_package_print_their_tables(folder, script, monkeypatch, capsys):
    arguments, settings = SCRIPTS[script]
    threads = torch.get_num_threads()
    monkeypatch.syspath_prepend("benchmarks")
    monkeypatch.setattr(sys, "argv", [script, str(folder), *arguments])
    spec = importlib.util.spec_from_file_location("script", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, value in settings.items():
        monkeypatch.setattr(module, name, value)
    module.main(*([[str(folder)]] if script.startswith("experiments") else []))
    torch.set_num_threads(threads)
    assert capsys.readouterr().out.count("\n| ") > 1
