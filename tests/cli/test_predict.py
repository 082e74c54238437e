"""`eenet predict RUN_DIR` on folders of images, tables of texts and stdin."""

import csv
import io
import json
import os
import shutil
from pathlib import Path
from unittest import mock

import pytest
import torch
import yaml
from PIL import Image
from pyarrow import parquet
from tests.conftest import make_outputs
from torch import nn

from eenet.cli import main
from eenet.data import Digits, DigitsSource
from eenet.inference import AdaptivePredictor
from eenet.metrics import least_budget
from eenet.models import CifarResNet, MultiExitNetwork
from eenet.modules.multi_exit import MultiExitModule
from eenet.outputs import ExitOutputs, save_outputs
from eenet.policies import EENetPlus, MaxProbability
from eenet.run_folder import RunFolder


class Texts:
    """Stands for a data module of texts: a text is its length."""

    text_column = "text"
    class_names = ("short", "long")

    def encode(self, raw):
        return torch.tensor([[float(len(text))] for text in raw])


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A run folder as `eenet pipeline` leaves it, with random weights."""
    folder = tmp_path_factory.mktemp("run")
    init = {"depth": 14, "exits": [1, 3, 6], "in_channels": 1, "widths": [8, 16, 32]}
    torch.manual_seed(0)
    net = CifarResNet(**init).eval()
    data = Digits()
    data.setup()
    x = torch.cat([data.on_after_batch_transfer(batch, 0)[0] for batch in data.val_dataloader()])
    with torch.inference_mode():
        logits = net(x).clone()
    outputs = ExitOutputs(torch.tensor([1.0, 2.0, 4.0]), logits, labels=torch.arange(len(x)) % 10)
    policies = nn.ModuleDict({"max_prob": MaxProbability(), "eenet+": EENetPlus()})
    for policy in policies.values():
        policy.fit(outputs)
    module = MultiExitModule(net)
    states = [module.state_dict(), {f"policies.{k}": v for k, v in policies.state_dict().items()}]
    configs = [
        {
            "model": {
                "init_args": {"net": {"class_path": "eenet.models.CifarResNet", "init_args": init}}
            },
            "data": {"class_path": "eenet.data.Digits"},
        },
        {
            "model": {
                "init_args": {
                    "policies": [
                        {"class_path": "eenet.policies.MaxProbability"},
                        {"class_path": "eenet.policies.EENetPlus"},
                    ],
                    "budget_unit": "fraction",
                }
            }
        },
    ]
    for number, (state, config) in enumerate(zip(states, configs, strict=True), 1):
        checkpoints = folder / f"stage{number}" / "checkpoints"
        checkpoints.mkdir(parents=True)
        torch.save({"state_dict": state}, checkpoints / "best.ckpt")
        (folder / f"stage{number}" / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


@pytest.fixture
def images(tmp_path):
    (tmp_path / "images" / "more").mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    for index in range(11):
        pixels = torch.randint(0, 255, (8, 8), generator=generator, dtype=torch.uint8)
        sub = "more/" if index % 2 else ""
        Image.fromarray(pixels.numpy()).save(tmp_path / "images" / f"{sub}{index}.png")
    return tmp_path / "images"


def rows_of(path):
    return list(csv.DictReader(path.open()))


def test_a_folder_of_images(run_dir, images, capsys):
    output = images.parent / "out.csv"
    main(
        ["predict", str(run_dir), "--input", str(images), "--output", str(output), "--batch_size=4"]
    )
    rows = rows_of(output)
    assert [row["input"] for row in rows] == [str(p) for p in sorted(images.rglob("*.png"))]
    predictor = AdaptivePredictor.from_run(run_dir, budget=0.5)
    assert predictor.policy.label == "max_prob"
    for row in rows:
        answer = predictor.predict(Digits().encode([Image.open(row["input"])]))
        assert int(row["prediction"]) == int(answer.predictions)
        assert float(row["confidence"]) == pytest.approx(
            float(answer.probabilities.max()), rel=1e-4
        )
        assert int(row["exit"]) == int(answer.exits) + 1
        assert float(row["cost"]) == [0.25, 0.5, 1.0][int(row["exit"]) - 1]
    assert "11 answers" in capsys.readouterr().out


def test_paths_from_stdin_to_parquet_by_another_policy(run_dir, images, monkeypatch):
    paths = [str(images / "4.png"), str(images / "0.png")]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join([*paths, ""])))
    output = images.parent / "out.parquet"
    options = ["--policy", "eenet+", "--budget", "0.8", "--control", "0.01"]
    main(["predict", str(run_dir), "--output", str(output), *options])
    assert parquet.read_table(output).to_pydict()["input"] == paths


@pytest.fixture
def text_run(monkeypatch):
    """A run on texts whose network says 1 for more than five characters."""

    def from_run(*args, **settings):
        net = nn.Linear(1, 2)
        with torch.no_grad():
            net.weight.copy_(torch.tensor([[0.0], [1.0]]))
            net.bias.copy_(torch.tensor([5.5, 0.0]))
        stages = [nn.Identity(), nn.Identity()]
        logits = torch.randn(2, 50, 2)
        policy = MaxProbability().fit(ExitOutputs(torch.tensor([1.0, 2.0]), logits))
        return AdaptivePredictor(MultiExitNetwork(stages, [net, net], 2), policy, 0.75)

    monkeypatch.setattr("eenet.cli.predict.check_finished", lambda *stages: None)
    monkeypatch.setattr(AdaptivePredictor, "from_run", from_run)
    monkeypatch.setattr(RunFolder, "data", lambda run: Texts())


def test_a_table_and_stdin_of_texts(text_run, tmp_path, monkeypatch):
    table, output = tmp_path / "in.csv", tmp_path / "out.csv"
    table.write_text('text,id\n"a, b",1\nlonger than that,2\n')
    main(["predict", "RUN", "--input", str(table), "--output", str(output)])
    monkeypatch.setattr("sys.stdin", io.StringIO("a, b\nlonger than that\n"))
    from_table = rows_of(output)
    main(["predict", "RUN", "--output", str(output)])
    assert rows_of(output) == from_table
    assert [row["class"] for row in from_table] == ["short", "long"]
    assert [row["input"] for row in from_table] == ["0", "1"]


def refused(capsys, *args):
    with pytest.raises(SystemExit) as stop:
        main(["predict", *map(str, args)])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error


def test_bad_input_is_named(run_dir, images, tmp_path, capsys):
    output = tmp_path / "out.csv"
    base = ("--input", images, "--output", output)
    assert "is not the folder of a finished run" in refused(capsys, tmp_path / "none", *base)
    assert "policy='eenet': " in refused(capsys, run_dir, *base, "--policy", "eenet")
    assert "cannot be met" in refused(capsys, run_dir, *base, "--budget", "0.01")
    (tmp_path / "empty").mkdir()
    assert "holds no image" in refused(capsys, run_dir, "--input", tmp_path / "empty")
    assert "does not exist" in refused(capsys, run_dir, "--input", tmp_path / "absent")
    assert "must end in" in refused(capsys, run_dir, "--output", "out.txt")


def status(*args):
    with pytest.raises(SystemExit) as stop:
        main(["predict", *map(str, args)])
    return stop.value.code


def test_one_bad_image_costs_the_others_nothing(run_dir, images, tmp_path, capsys, monkeypatch):
    output = tmp_path / "out.csv"
    whole = (images / "0.png").read_bytes()
    (images / "5.png").write_bytes(b"no image")
    (images / "6.png").write_bytes(whole[:30])
    odd = os.fsencode(images) + b"/caf\xe9.png"
    with open(odd, "wb") as file:
        file.write(whole)
    base = (run_dir, "--input", images, "--output", output, "--batch_size", "2")
    assert status(*base) == 1
    rows, unanswered = rows_of(output), rows_of(tmp_path / "out.csv.unanswered.csv")
    assert [Path(row["input"]).name for row in unanswered] == ["5.png", "6.png"]
    assert all("cannot be read" in row["reason"] for row in unanswered)
    assert len(rows) == 11
    assert any(row["input"].endswith("caf\\xe9.png") for row in rows)
    assert "2 of 13 inputs could not be answered" in capsys.readouterr().err
    main(["predict", *map(str, base), "--skip_unreadable", "true"])
    assert rows_of(output) == rows

    lines = [f"{images}/0.png\r", "", f"{images}/a\0b.png", f"{images}/4.png"]
    monkeypatch.setattr("sys.stdin", io.StringIO("\ufeff" + "\n".join(lines)))
    assert status(run_dir, "--output", output) == 1
    assert [Path(row["input"]).name for row in rows_of(output)] == ["0.png", "4.png"]
    assert rows_of(tmp_path / "out.csv.unanswered.csv")[0]["input"].endswith("ab.png")


def test_an_interrupted_command_resumes(run_dir, images, tmp_path, capsys):
    output, part = tmp_path / "out.csv", tmp_path / "out.csv.part"
    base = [str(run_dir), "--input", str(images), "--output", str(output), "--batch_size", "2"]
    main(["predict", *base])
    expected, seen = rows_of(output), []
    output.unlink()
    encode = DigitsSource.encode

    def interrupted(data, raw):
        seen.append(len(raw))
        if len(seen) == 4:
            raise KeyboardInterrupt
        return encode(data, raw)

    with mock.patch.object(DigitsSource, "encode", interrupted), pytest.raises(KeyboardInterrupt):
        main(["predict", *base])
    assert not output.exists()
    with part.open("a") as file:
        file.write('{"input": "cut o')
    assert "holds answers of other inputs or settings" in refused(capsys, *base, "--budget", "0.9")
    main(["predict", *base])
    assert "resumes after" in capsys.readouterr().out
    assert rows_of(output) == expected
    assert not part.exists()


def test_one_bad_text_costs_the_others_nothing(text_run, tmp_path, capsys, monkeypatch):
    table, output = tmp_path / "in.csv", tmp_path / "out.csv"
    table.write_text("sentence\nhello\n")
    assert "has the columns ['sentence']" in refused(capsys, "RUN", "--input", table)
    table.write_text("text,n\nhello,1\n,2\n🎉,3\n")
    assert status("RUN", "--input", table, "--output", output) == 1
    assert [row["input"] for row in rows_of(output)] == ["0", "2"]
    (missing,) = rows_of(tmp_path / "out.csv.unanswered.csv")
    assert missing == {"input": "1", "reason": "there is no text"}
    monkeypatch.setattr("sys.stdin", io.StringIO("\ufeffhello\r\n\nlonger than that\n\udce9\n"))
    assert status("RUN", "--output", output) == 1
    assert [(row["input"], row["class"]) for row in rows_of(output)] == [
        ("0", "short"),
        ("2", "long"),
    ]
    unanswered = rows_of(tmp_path / "out.csv.unanswered.csv")
    assert [row["input"] for row in unanswered] == ["1", "3"]
    assert unanswered[1]["reason"].startswith("this line is not text in UTF-8: ")
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    assert "stdin is empty" in refused(capsys, "RUN")


def test_the_first_policy_that_serves_the_budget_is_taken(run_dir, monkeypatch):
    served = MaxProbability.at_fraction

    def at_fraction(policy, budget):
        if budget == 0.7:
            raise ValueError("fitted for other budgets")
        return served(policy, budget)

    monkeypatch.setattr(MaxProbability, "at_fraction", at_fraction)
    labels = [AdaptivePredictor.from_run(run_dir, budget).policy.label for budget in (0.5, 0.7)]
    assert labels == ["max_prob", "eenet+"]
    with pytest.raises(ValueError, match="cannot be met"):
        AdaptivePredictor.from_run(run_dir, 0.01)


def test_asked_by_accuracy_and_watched(run_dir, images, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(run_dir, run)
    config = yaml.safe_load((run / "stage2" / "config.yaml").read_text()) | {"data": {}}
    (run / "stage2" / "config.yaml").write_text(yaml.safe_dump(config))
    outputs = make_outputs(3, 2000, 10, costs=torch.tensor([1.0, 2.0, 4.0]))
    save_outputs(outputs, run / "stage1" / "outputs" / "test.safetensors")
    output = tmp_path / "out.csv"
    base = [str(run), "--input", str(images), "--output", str(output), "--max_loss", "0.05"]
    main(["predict", *base, "--alarm", "0.01"])
    said = capsys.readouterr().out
    asked = least_budget(RunFolder(run).policies()["eenet+"], outputs, 0.05)
    assert "policy eenet+; mean cost" in said
    assert f"at a budget of {asked.budget:g};" in said
    assert f"{output}: {asked}" in said
    assert "the alarm is silent" in said
    save_outputs(outputs, run / "stage1" / "outputs" / "cal.safetensors")
    main(["predict", *base, "--delta", "0.2"])
    assert "promised with probability 0.8" in capsys.readouterr().out
    main(["predict", *base[:-2], "--max_disagreement", "0.2"])
    assert "for a disagreement of at most 0.2: promised" in capsys.readouterr().out
    assert "holds no latencies" in refused(capsys, *base[:-2], "--max_ms", "3")
    costs = {"device": "cpu", "ms_p99": [1.0, 2.0, 4.0]}
    (run / "stage1" / "costs.json").write_text(json.dumps(costs))
    main(["predict", *base[:-2], "--max_ms", "3", "--tail", "0.2"])
    assert "for a share above 3 ms of at most 0.2: promised" in capsys.readouterr().out
    assert "max_ms=0.9: exit 1 alone takes 1 ms" in refused(capsys, *base[:-2], "--max_ms", "0.9")
    (run / "stage1" / "costs.json").write_text(json.dumps(costs | {"device": "TPU"}))
    assert "not of 'cpu'" in refused(capsys, *base[:-2], "--max_ms", "9")
    assert "give one of them" in refused(capsys, *base, "--max_disagreement", "0.2")
    assert "give one of them" in refused(capsys, *base, "--budget", "0.5")
    assert "give one of them" in refused(capsys, *base, "--control", "0.01")
    assert "delta=3.0: a probability" in refused(capsys, *base, "--delta", "3")


def test_files_and_loaders_reach_a_predictor_in_python(run_dir, images):
    predictor = AdaptivePredictor.from_run(run_dir, 0.8)
    files = sorted(images.rglob("*.png"))
    x = predictor.encode(files)
    assert torch.equal(x, RunFolder(run_dir).data().encode(files))
    data = Digits()
    data.setup("test")
    loaded = [a.exits for a in predictor.predict_stream(data.test_dataloader())]
    batch, _ = data.on_after_batch_transfer(next(iter(data.test_dataloader())), 0)
    assert torch.equal(loaded[0], predictor.predict(batch).exits)
    predictor.recalibrate(data.val_dataloader())
    with pytest.raises(ValueError, match="from_run"):
        AdaptivePredictor(predictor.net, predictor.policy, 0.8).encode(files)


def test_lightning_keeps_its_own_predict(capsys):
    with pytest.raises(SystemExit):
        main(["predict", "--help-all"])
    assert "--ckpt_path" in capsys.readouterr().out
