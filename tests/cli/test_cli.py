"""The command line: every shipped config parses, bad input gets one clear error."""

import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
import yaml
from tests.conftest import make_outputs

import eenet
from eenet.cli import main
from eenet.cli.lightning import EENetCLI, stage_parser
from eenet.cli.pipeline import pipeline_parser
from eenet.cli.recipes import RECIPES
from eenet.models import backbone, resnet, transformer
from eenet.outputs import load_outputs, save_outputs

OWN = Path("experiments/fast_resnet.yaml")
CONFIGS = sorted([*RECIPES.glob("*/*.yaml"), *Path("tests/conf").rglob("*.yaml"), OWN])
SCHEDULER = str(RECIPES / "outputs/scheduler.yaml")


def no_download(name_or_path, config, load=transformer._load):
    """A small encoder of as many layers in place of the hub's."""
    small = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
    layers = 6 if "MiniLM" in name_or_path else 12
    return load(None, {"model_type": "bert", "num_hidden_layers": layers, **small})


@pytest.mark.parametrize("path", CONFIGS, ids=str)
def test_every_config_is_valid_and_instantiates(path, monkeypatch):
    monkeypatch.setattr(transformer, "_load", no_download)
    load = backbone.load_network

    def random(name, classes, weights, options):
        return load(name, classes, None, options)._replace(trained_stages=True)

    monkeypatch.setattr(backbone, "load_network", random)
    monkeypatch.setattr(resnet, "_take_published", lambda *_: True)
    make = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **_: make(name))
    stages = [stage_parser().parse_path(path)] if "stage1" not in path.read_text() else None
    if stages is None:
        config = pipeline_parser().parse_args(["--config", str(path)])
        stages = [config.stage1, config.stage2]
        if "weights/" in path.read_text():  # a file that a user downloads
            config.stage1.model.init_args.net.init_args.weights = None
    for stage in stages:
        init = stage_parser().instantiate(stage)
        assert init.model is not None
        assert init.data is not None


@pytest.fixture
def files(tmp_path):
    save_outputs(make_outputs(seed=0), tmp_path / "val.safetensors")
    save_outputs(make_outputs(seed=1), tmp_path / "test.safetensors")
    return tmp_path


def fit(folder, *more):
    args = ["fit", "--config", SCHEDULER, "--trainer.max_epochs=4"]
    args += [f"--data.fit={folder}/val.safetensors", f"--data.test={folder}/test.safetensors"]
    args += [f"--trainer.default_root_dir={folder}/run", "--trainer.enable_progress_bar=false"]
    args += ["--trainer.logger=false", "--trainer.check_val_every_n_epoch=1", *more]
    return EENetCLI(args=args)


def test_stage_2_alone_on_outputs_of_another_program(files):
    fit(files)
    config = files / "run" / "config.yaml"
    (files / "val.safetensors").unlink()  # the checkpoint holds what was fitted
    main(["test", "--config", str(config), "--data.fit=null"])
    main(["predict", "--config", str(config), "--data.fit=null"])
    rows = list(csv.DictReader((files / "run" / "decisions.csv").open()))
    assert len(rows) == 5 * 7 * 400
    outputs = load_outputs(files / "test.safetensors")
    for row in rows[::997]:
        k, n = int(row["exit"]) - 1, int(row["sample"])
        assert float(row["cost"]) == outputs.costs[k]
        assert int(row["prediction"]) == outputs.logits[k, n].argmax()
    lines = (files / "run" / "curve.csv").read_text().splitlines()
    assert len(lines) == 1 + 5 * 7
    assert (files / "run" / "curve.png").stat().st_size > 10_000


def test_refitting_with_the_same_seed_is_bit_identical(files):
    first = fit(files).model.state_dict()
    again = fit(files).model.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    other = fit(files, "--seed_everything=1").model.state_dict()
    assert any(not torch.equal(value, other[name]) for name, value in first.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("--model.init_args.budgets=[0.01,0.5]", "budget=0.01 cannot be met"),
        ("--model.init_args.budgets=[0.5,0.4]", "must be one or more increasing numbers"),
        ("--data.init_args.fit=nothing.safetensors", "nothing.safetensors does not exist"),
        ("--data.init_args.holdout=1", "holdout=1.0 must be a fraction"),
        ("--model.init_args.policies=[eenet.policies.Margin,eenet.policies.Margin]", "labels"),
        ("--model.init_args.polices=[]", "polices"),
    ],
)
def test_bad_input_is_named_before_any_work(files, capsys, change, message):
    args = ["fit", "--config", SCHEDULER, f"--data.init_args.fit={files}/val.safetensors"]
    args += [f"--trainer.default_root_dir={files}/run", "--trainer.logger=false", change]
    with pytest.raises(SystemExit) as stop:
        main(args)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (files / "run" / "checkpoints").exists()


def test_a_network_for_other_classes_is_refused_before_training(tmp_path, capsys):
    args = ["fit", "--config", stage1_config(tmp_path)]
    with pytest.raises(SystemExit):
        main([*args, "--model.init_args.net.init_args.num_classes=7"])
    assert "num_classes=7, but the data have 10 classes" in capsys.readouterr().err


def stage1_config(folder):
    """The first stage of the tiny pipeline as a config of its own."""
    config = yaml.safe_load(Path("tests/conf/tiny.yaml").read_text())["stage1"]
    config["trainer"] |= {"logger": False, "default_root_dir": str(folder / "other")}
    path = folder / "stage1.yaml"
    path.write_text(yaml.safe_dump(config))
    return str(path)


def test_places_of_exits_are_listed_with_their_costs(capsys):
    main(["exits", "torchvision.models.resnet18", "--input_size", "3,64,64"])
    rows = [re.split(r" *│ *", line.strip(" │")) for line in capsys.readouterr().out.splitlines()]
    names = [row[0] for row in rows if len(row) == 4]
    assert names[names.index("layer1.1") :][:3] == ["layer1.1", "layer2.0", "layer2.1"]
    (layer2,) = (row for row in rows if row[0] == "layer2.1")
    assert layer2[3] == "128 x 8 x 8"


def test_the_last_epoch_is_kept_even_where_it_is_not_the_best(tmp_path):
    EENetCLI(args=["fit", "--config", stage1_config(tmp_path), "--checkpoint.mode=min"])
    epochs = {
        name: torch.load(tmp_path / "other/checkpoints" / name, weights_only=True)["epoch"]
        for name in ("best.ckpt", "last.ckpt")
    }
    assert epochs == {"best.ckpt": 0, "last.ckpt": 1}


def test_the_checkpoint_of_another_class_is_refused(files, capsys):
    fit(files)
    checkpoint = files / "run" / "checkpoints" / "best.ckpt"
    with pytest.raises(SystemExit):
        main(["test", "--config", stage1_config(files), "--ckpt_path", str(checkpoint)])
    assert "not of MultiExitModule: it holds ['policies']" in capsys.readouterr().err


def test_without_a_checkpoint_nothing_is_tested(files, capsys):
    with pytest.raises(SystemExit):
        main(["test", "--config", SCHEDULER, f"--trainer.default_root_dir={files}/none"])
    assert "there is nothing to test" in capsys.readouterr().err


LIGHT = [
    *([], ["--help"], ["--version"], ["pipelin"], ["recipes"], ["recipes", "nothing"]),
    *([command, "--help"] for command in ("pipeline", "fit", "test", "compare", "report", "exits")),
    *(["pipeline"], ["pipeline", "--config", "nothing"], ["fit", "--config", "digits/resnet20"]),
    *(["pipeline", "--config", "outputs/scheduler"], ["compare", "nothing"], ["compare"]),
    *(["sweep", "--help"], ["sweep", "nothing"], ["predict", "--help"], ["report", "nothing"]),
    ["predict", "nothing", "--input", "README.md"],
]


def test_what_needs_no_torch_does_not_wait_for_it():
    program = """
import sys
from contextlib import suppress
from eenet.cli import main
for words in eval(sys.argv[1]):
    with suppress(SystemExit):
        main(words)
    assert not {"torch", "lightning", "wandb", "pandas"} & {*sys.modules}, words
"""
    result = subprocess.run([sys.executable, "-c", program, repr(LIGHT)], capture_output=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pipelin"], "there is no command 'pipelin'; did you mean 'pipeline'?"),
        (["nonsense"], "`eenet --help` lists the commands"),
        (["pipeline"], "config: give --config"),
        (["pipeline", "--config", "digits/resnet2"], "did you mean digits/resnet20?"),
        (["fit", "--config", "digits/resnet20"], "use `eenet pipeline --config"),
        (["pipeline", "--config", "outputs/scheduler"], "use `eenet fit --config"),
        (["fit", "--config=LICENSE"], "config='LICENSE' is not"),
        (["test", "--config", "conf"], "config='conf' is neither a file nor a recipe"),
        (["compare", "run", "--seeds", "0"], "seeds: 0 must be >0"),
        (
            ["predict", "nothing", "--input", "LICENSE"],
            "nothing is not the folder of a finished run",
        ),
        (["report", "nothing"], "nothing is not the folder of a finished"),
        (["compare", "run", "--seed", "1"], "unrecognized arguments: --seed"),
        (["exits", "resnet5"], "model='resnet5' cannot be built"),
        (["exits", "resnet18", "--input_size", "big"], "input_size='big' must be whole numbers"),
        (["exits", "nowhere.Net"], "model='nowhere.Net' cannot be built"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(words, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_wrong_setting_is_named_with_its_class_and_its_file(tmp_path, capsys):
    text = (RECIPES / "digits/resnet20.yaml").read_text()
    path = tmp_path / "mine.yaml"
    for old, new, message in (
        (
            "depth: 20",
            "depht: 20",
            "net (eenet.models.CifarResNet): Option 'depht' is not accepted",
        ),
        ("max_epochs: 40", "max_epochs: many", "stage1.trainer.max_epochs: expected int, got many"),
    ):
        path.write_text(text.replace(old, new))
        with pytest.raises(SystemExit):
            main(["pipeline", "--config", str(path)])
        assert f"{message} (in {path})\n" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["pipeline", "--config", "digits/resnet20", "--stage1.trainer.max_epochs=many"])
    assert "expected int, got many\n" in capsys.readouterr().err


def test_version_and_help(capsys):
    main([])
    assert "eenet pipeline --config FILE" in capsys.readouterr().out
    main(["--version"])
    assert capsys.readouterr().out == f"eenet {eenet.__version__}\n"
    for words in (["fit"], ["pipeline"], ["predict", "--config", "FILE"], ["fit", "--help-all"]):
        with pytest.raises(SystemExit) as stop:
            main([*words, "--help"])
        assert stop.value.code == 0
        assert "--config" in capsys.readouterr().out


def test_the_short_help_of_the_pipeline_names_its_own_flags(capsys):
    with pytest.raises(SystemExit):
        main(["pipeline", "--help"])
    text = capsys.readouterr().out
    flags = {action.option_strings[-1] for action in pipeline_parser()._actions} - {"--stage2"}
    assert not [flag for flag in flags if "." not in flag and flag not in text]


@pytest.mark.parametrize(
    ("words", "setting"),
    [
        (["pipeline", "--stage1.model.init_args.net.help=MSDNet"], "--growth_rate"),
        (["fit", "--data.help", "eenet.data.ImageFolder"], "--root"),
        (["fit", "--trainer.logger.help", "CSVLogger"], "--trainer.logger.save_dir"),
    ],
)
def test_the_settings_of_a_class(words, setting, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 0
    assert setting in capsys.readouterr().out
