"""`eenet sweep` asks for what W&B's agent would run, and survives what goes wrong."""

import csv
import importlib.util
import json
import math
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from wandb import wandb_agent

from eenet.cli import main
from eenet.cli.sweep import sweep
from eenet.cli.sweep_file import command_of, read_sweep, trials

FILES = sorted(Path("experiments/sweeps").glob("*.yaml"))
# A trial in a blink: logs the square of x, as Lightning's CSVLogger would.
PROGRAM = """
import os, sys, time
x, folder = float(sys.argv[1].split("=")[1]), os.environ["EENET_TRIAL_DIR"]
print("started", x, flush=True)
with open(os.environ["STARTS"], "a") as file:
    file.write(f"{x:g}\\n")
time.sleep(float(os.environ.get("NAP", 0)))
if x == float(os.environ.get("BAD", "nan")):
    sys.exit("no luck with " + sys.argv[1])
with open(folder + "/metrics.csv", "w") as file:
    file.write(f"epoch,score,test/other\\n0,7,\\n1,{x * x},{-x}\\n")
with open(os.environ["STARTS"], "a") as file:
    file.write(f"end-of-{x:g}\\n")
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setenv("STARTS", str(tmp_path / "starts"))
    (tmp_path / "trial.py").write_text(PROGRAM)
    config = {
        "method": "grid",
        "metric": {"name": "score", "goal": "maximize"},
        "program": str(tmp_path / "trial.py"),
        "parameters": {"x": {"values": [1, 2, 3]}},
    }
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def change(file, **changes):
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | changes))
    return file


def starts(file):
    lines = (file.parent / "starts").read_text().split()
    return Counter(line for line in lines if not line.startswith("end"))


@pytest.mark.parametrize("path", FILES, ids=str)
def test_the_files_keep_to_the_schema_of_wandb(path):
    jsonschema = pytest.importorskip("jsonschema")
    # Its package is not imported, since it wants numpy 1; `make install` brings it for this test.
    package = importlib.util.find_spec("sweeps")
    if package is None:
        pytest.skip("W&B's schema is in its package sweeps: pip install --no-deps sweeps")
    schema = json.loads((Path(package.origin).parent / "config" / "schema.json").read_text())
    jsonschema.validate(yaml.safe_load(path.read_text()), schema)


@pytest.mark.parametrize("path", FILES, ids=str)
def test_the_commands_are_those_of_wandb_agent(path, tmp_path, monkeypatch):
    config = read_sweep(path, "random")
    started = []
    monkeypatch.setattr(wandb_agent, "AgentProcess", lambda command, **_: started.append(command))
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    for name in ("WANDB_RUN_ID", "WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH"):  # the agent sets them
        monkeypatch.setenv(name, "")
    agent = wandb_agent.Agent.__new__(wandb_agent.Agent)
    agent.__dict__ |= {"_in_jupyter": False, "_function": None, "_forward_signals": False}
    agent._run_processes = _Processes()
    for command in (
        config["command"],
        ["${env}", "A=b", "${interpreter}", "${program}", "${args}"],
    ):
        config |= {"command": command, "program": "train.py"}
        own = []
        for number, trial in enumerate(trials(config, 3)):
            agent._sweep_command = list(command)
            args = {name: {"value": value} for name, value in trial.items()}
            agent._command_run({"run_id": f"r{number}", "args": args, "program": "train.py"})
            own.append(command_of(config, trial))
        assert own == started[-3:]
        assert len({str(words) for words in own}) == 3


def test_values_reach_the_settings_as_they_stand(file, capsys):
    values = [None, "macs", [1.0, 2.5], [0.5]]
    parameters = {"data.init_args.costs": {"values": values}}
    command = ["eenet", "fit", "--config", "conf/outputs/scheduler.yaml", "${args}"]
    config = read_sweep(change(file, parameters=parameters, command=command))
    for trial, value in zip(trials(config), values, strict=True):
        with pytest.raises(SystemExit):
            main([*command_of(config, trial)[1:], "--print_config"])
        printed = yaml.safe_load(capsys.readouterr().out)
        assert printed["data"]["init_args"]["costs"] == value
    texts = {"a": ["it's", "back\\slash", None, True]}
    config["command"] = ["${args_no_equals}", "${args_json}"]
    _, text, whole = command_of(config, texts)
    assert yaml.safe_load(text) == texts["a"]
    assert json.loads(whole) == texts


class _Processes(dict):
    """Takes the agent's notes about a process that was never started."""

    def __setitem__(self, key, value):
        super().__setitem__(key, SimpleNamespace())


def test_distributions_are_drawn_as_wandb_describes_them(file):
    parameters = {
        "constant": {"value": "adam"},
        "choice": {"values": [[1], [2]]},
        "whole": {"min": 1, "max": 3},
        "real": {"min": 0, "max": 1.0},
        "log": {"distribution": "log_uniform_values", "min": 1.0e-4, "max": 1.0},
        "steps": {"distribution": "q_uniform", "min": 0, "max": 10, "q": 5},
        "bell": {"distribution": "normal", "mu": 3.0, "sigma": 0.1},
    }
    config = read_sweep(change(file, method="random", parameters=parameters))
    found = trials(config, 2000, seed=1)
    seen = {name: [trial[name] for trial in found] for name in parameters}
    assert set(seen["constant"]) == {"adam"}
    assert {tuple(x) for x in seen["choice"]} == {(1,), (2,)}
    assert set(seen["whole"]) == {1, 2, 3}
    assert 0 < min(seen["real"]) < 0.01 < 0.99 < max(seen["real"]) < 1
    assert sum(x < 0.01 for x in seen["log"]) == pytest.approx(1000, abs=100)  # half of the decades
    counts = Counter(seen["steps"])
    assert [counts[x] for x in (0, 5, 10)] == pytest.approx([500, 1000, 500], abs=100)
    mean = sum(seen["bell"]) / 2000
    assert mean == pytest.approx(3, abs=0.01)
    assert math.dist(seen["bell"], [mean] * 2000) == pytest.approx(0.1 * 2000**0.5, rel=0.1)
    assert trials(config, 5, seed=1) == found[:5]
    assert trials(config, 5, seed=2) != found[:5]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "bayes"}, "--method random --count N"),
        ({"method": "random"}, "--count N"),
        ({"early_terminate": {"type": "hyperband"}}, "early_terminate"),
        ({"parameters": {"x": {"distribution": "beta"}}}, "parameters.x.*beta.*log_uniform_values"),
        ({"parameters": {"x": {"parameters": {}}}}, "parameters.x.*not supported"),
        ({"parameters": {"x": {"min": 0.1, "max": 1.0}}}, "parameters.x: a grid .* uniform"),
        ({"parameters": {"x": {"min": "1e-3", "max": 1.0}}}, "min is not a number"),
        ({"parameters": {"x": {"min": 2, "max": 1}}}, "min must be below max"),
        ({"metric": {"goal": "maximize"}}, "`metric` needs a `name`"),
        ({"command": ["${args_json_files}"]}, "args_json_files.* is not supported"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(file, changes, message):
    with pytest.raises(ValueError, match=message):
        sweep(str(change(file, **changes)), output=str(file.parent / "out"))
    assert not (file.parent / "out").exists()


def test_a_failed_trial_is_shown_and_tried_again_alone(file, monkeypatch, capsys):
    folder = file.parent / "out"
    monkeypatch.setenv("BAD", "2")
    assert sweep(str(file), jobs=2, output=str(folder)) == 1
    assert "no luck with --x=2" in capsys.readouterr().out
    monkeypatch.delenv("BAD")
    assert sweep(str(file), jobs=2, output=str(folder)) == 0
    assert starts(file) == {"1": 1, "2": 2, "3": 1}
    rows = list(csv.DictReader((folder / "sweep.csv").open()))
    assert [row["x"] for row in rows] == ["1", "2", "3"]
    assert [float(row["score"]) for row in rows] == [1, 4, 9]
    assert [float(row["test/other"]) for row in rows] == [-1, -2, -3]
    printed = capsys.readouterr().out
    assert printed.index("│ 3 ") < printed.index("│ 2 ") < printed.index("│ 1 ")  # best on top

    change(file, parameters={"x": {"values": [3, 4]}})  # the table is that of the file
    assert sweep(str(file), output=str(folder)) == 0
    assert starts(file)["3"] == 1
    rows = list(csv.DictReader((folder / "sweep.csv").open()))
    assert [row["x"] for row in rows] == ["3", "4"]

    program = file.parent / "trial.py"  # another program gives other results
    program.write_text(program.read_text() + "\n")
    assert sweep(str(file), output=str(folder)) == 0
    assert starts(file)["3"] == 2


def test_a_trial_that_does_not_log_the_metric_fails(file, capsys):
    change(file, metric={"name": "loss"})
    assert sweep(str(file), count=1, output=str(file.parent / "out")) == 1
    assert "has 'loss'" in capsys.readouterr().out


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_sweep_goes_on(file, sent, monkeypatch):
    """The two trials under way end with the sweep or, if it is killed, are waited for."""
    monkeypatch.setenv("NAP", "1.5")
    folder = file.parent / "out"
    program = "import sys; from eenet.cli.sweep import sweep_command; sweep_command(sys.argv[1:])"
    command = [sys.executable, "-c", program, str(file), "--jobs=2", f"--output={folder}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while not (file.parent / "starts").is_file() or starts(file).total() < 2:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(sent)
    assert process.wait() != 0
    assert not list(folder.glob("*/done.json"))
    monkeypatch.setenv("NAP", "0")
    assert sweep(str(file), jobs=2, output=str(folder)) == 0
    lines = (file.parent / "starts").read_text().split()
    for x in ("1", "2"):  # two processes never write in one folder
        cut_off = [x] if sent == signal.SIGTERM else [x, f"end-of-{x}"]
        assert [line for line in lines if line.endswith(x)] == [*cut_off, x, f"end-of-{x}"]
    assert lines.count("3") == 1
    assert len(list(csv.DictReader((folder / "sweep.csv").open()))) == 3
    assert not list(folder.rglob("*.part"))
