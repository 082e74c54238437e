"""`eenet predict RUN_DIR` on folders of images, tables of texts and stdin."""

import csv
import io

import pytest
import torch
import yaml
from PIL import Image
from pyarrow import parquet
from torch import nn

from eenet.cli import main, predict
from eenet.data import Digits
from eenet.inference import AdaptivePredictor
from eenet.models import CifarResNet, MultiExitNetwork
from eenet.modules.multi_exit import MultiExitModule
from eenet.outputs import ExitOutputs
from eenet.policies import EENetPlus, MaxProbability


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

    monkeypatch.setattr(predict.AdaptivePredictor, "from_run", from_run)
    monkeypatch.setattr(predict.RunFolder, "data", lambda run: Texts())


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
    (images / "5.png").write_bytes(b"no image")
    assert "5.png cannot be read" in refused(capsys, run_dir, *base)
    assert not output.exists()
    main(["predict", str(run_dir), *map(str, base), "--skip_unreadable", "true"])
    assert len(rows_of(output)) == 11
    assert "skipped" in capsys.readouterr().err


def test_bad_texts_are_named(text_run, tmp_path, capsys, monkeypatch):
    table = tmp_path / "in.csv"
    table.write_text("sentence\nhello\n")
    assert "has the columns ['sentence']" in refused(capsys, "RUN", "--input", table)
    table.write_text("text,n\nhello,1\n,2\n")
    assert "no text in 'text' in the rows [1]" in refused(capsys, "RUN", "--input", table)
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    assert "stdin is empty" in refused(capsys, "RUN")


def test_lightning_keeps_its_own_predict(capsys):
    with pytest.raises(SystemExit):
        main(["predict", "--help-all"])
    assert "--ckpt_path" in capsys.readouterr().out
