"""`eenet push`, and runs that are read from a shared folder or the hub's cache."""

import json
import os
import re
import subprocess
import sys
from unittest import mock

import huggingface_hub
import pytest
import torch
import yaml
from tests.conftest import make_outputs

from eenet.cli import main
from eenet.cli.push import public
from eenet.files import load_checkpoint, save_checkpoint
from eenet.inference import AdaptivePredictor
from eenet.models import CifarResNet
from eenet.outputs import save_outputs
from eenet.policies import EENetPlus, MaxProbability
from eenet.run_folder import RunFolder

NET = {"depth": 14, "exits": [1, 3, 6], "in_channels": 1, "widths": [8, 16, 32]}


@pytest.fixture
def run_dir(tmp_path):
    """A run folder as `eenet pipeline` leaves it, with random weights and private settings."""
    folder = tmp_path / "digits"
    val, test = make_outputs(classes=10, seed=1), make_outputs(classes=10, seed=2)
    for split, outputs in (("val", val), ("test", test)):
        save_outputs(outputs, folder / f"stage1/outputs/{split}.safetensors")
    policies = torch.nn.ModuleDict({"max_prob": MaxProbability(), "eenet+": EENetPlus()})
    for policy in policies.values():
        policy.fit(val)
    torch.manual_seed(0)
    states = [CifarResNet(**NET).state_dict(), policies.state_dict()]
    net = {"class_path": "eenet.models.CifarResNet", "init_args": {**NET, "weights": "/home/me/w"}}
    chosen = [{"class_path": f"eenet.policies.{x}"} for x in ("MaxProbability", "EENetPlus")]
    logger = {"class_path": "lightning.pytorch.loggers.WandbLogger", "init_args": {"entity": "me"}}
    second = {"policies": chosen, "budget_unit": "fraction", "budgets": [0.3, 0.6]}
    models, datas = [{"net": net}, second], [{"class_path": "eenet.data.Digits"}, {}]
    for number in (1, 2):
        stage = folder / f"stage{number}"
        config = {"trainer": {"logger": [logger]}, "model": {"init_args": models[number - 1]}}
        config |= {"data": datas[number - 1]}
        (stage / "checkpoints").mkdir(parents=True)
        (stage / "wandb-id.txt").write_text("secret")
        (stage / "config.yaml").write_text(yaml.safe_dump(config))
        identity = json.dumps({"seed_everything": number, "root": "/home/me/data"})
        (stage / "identity.json").write_text(identity)
        prefix = ("net.", "policies.")[number - 1]
        content = {"state_dict": {prefix + k: x for k, x in states[number - 1].items()}}
        content |= {"restore_args": {"weights": None}, "optimizer_states": [{"lr": 0.1}]}
        torch.save(content, stage / "checkpoints/best.ckpt")
    return folder


def test_a_shared_folder_answers_as_the_run(run_dir, tmp_path):
    shared = tmp_path / "colleague/digits"
    main(["push", str(run_dir), str(shared), "--license", "apache-2.0"])
    x = torch.rand(50, 1, 8, 8)
    for policy in ("max_prob", "eenet+"):
        ours, theirs = (
            AdaptivePredictor.from_run(run, 0.5, policy).predict(x) for run in (run_dir, shared)
        )
        assert torch.equal(ours.probabilities, theirs.probabilities)
        assert torch.equal(ours.exits, theirs.exits)
    for command, name in (("compare", "compare.csv"), ("report", "report.html")):
        quick = ["--budgets", "2", "--seeds", "1", "--policies", "max_prob", "--jobs", "1"]
        quick = [*quick, "--reference", "max_prob"] if command == "compare" else []
        for run in (run_dir, shared):
            main([command, str(run), "--output", str(run / "out"), *quick])
        assert (run_dir / "out" / name).read_bytes() == (shared / "out" / name).read_bytes()


def test_what_is_shared_is_no_pickle_and_names_no_place_or_person(run_dir, tmp_path):
    shared = tmp_path / "shared"
    main(["push", str(run_dir), str(shared)])
    files = [path for path in shared.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".safetensors", ".json", ".yaml", ".md"}
    for path in files:
        assert not re.search(rb"/home|secret|Wandb|/tmp", path.read_bytes()), path
    card = (shared / "README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["library_name"] == "eenet"
    quality = 100 * make_outputs(classes=10, seed=2).answer_quality()[-1].double().mean()
    assert f"| 3 | 6 | {quality:.2f} |" in card


def test_absolute_paths_keep_their_last_part():
    settings = {"a": ["/data/me/set/", "~/x", "C:\\me\\y", "hf:/home/me/net"]}
    assert public(settings) == {"a": ["set", "x", "y", "hf:net"]}
    kept = ["../stage1/outputs/val.safetensors", "timm:resnet18", "https://host/x", 3, None]
    assert public(kept) == kept


def test_a_checkpoint_keeps_bytes_and_weights_that_share_memory(tmp_path):
    weight, kept = torch.rand(3, 2), {"Texts": {"tokenizer": {"a.json": b"\x00\xff"}}}
    save_checkpoint(tmp_path / "x.safetensors", {"a": weight, "b": weight.T}, kept)
    found = load_checkpoint(tmp_path / "x.safetensors")
    assert found["Texts"] == kept["Texts"]
    assert torch.equal(found["state_dict"]["b"], weight.T)


def test_nothing_else_is_overwritten(run_dir, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("x")
    for to in (tmp_path / "mine", run_dir):
        with pytest.raises(SystemExit):
            main(["push", str(run_dir), str(to)])
        assert "exists and is not empty" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["push", str(tmp_path / "none"), str(tmp_path / "new")])
    assert not (tmp_path / "new").exists()
    assert not list(tmp_path.glob(".push-*"))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The hub's cache with a function that puts what is uploaded into it, as a download does."""
    cache = tmp_path / "cache"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    api = mock.Mock(list_repo_files=mock.Mock(return_value=[".gitattributes"]))

    def upload(repo_id, folder_path, **settings):
        repo = cache / f"models--{repo_id.replace('/', '--')}"
        (repo / "refs").mkdir(parents=True)
        (repo / "refs/main").write_text("a" * 40)
        (repo / "snapshots").mkdir()
        os.rename(folder_path, repo / "snapshots" / ("a" * 40))

    api.upload_folder.side_effect = upload
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: api)
    return api


def test_there_and_back_by_the_hub(run_dir, hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(["push", str(run_dir), "hf:me/there", "--private", "true"])
    hub.create_repo.assert_called_once_with("me/there", private=True, exist_ok=True)
    x = torch.rand(20, 1, 8, 8)
    ours, theirs = (AdaptivePredictor.from_run(run).predict(x) for run in (run_dir, "hf:me/there"))
    assert torch.equal(ours.probabilities, theirs.probabilities)
    main(["report", "hf:me/there"])
    assert (tmp_path / "runs/there/report/report.html").is_file()
    assert 'from_run("hf:me/there"' in (RunFolder("hf:me/there").path / "README.md").read_text()


def test_a_repository_of_something_else_is_left_alone(run_dir, hub, capsys):
    hub.list_repo_files.return_value = ["model.safetensors"]
    with pytest.raises(SystemExit):
        main(["push", str(run_dir), "hf:me/bert"])
    assert "no run of eenet" in capsys.readouterr().err
    hub.upload_folder.assert_not_called()


def test_a_run_that_the_cache_does_not_have(hub, capsys):
    for name in ("hf:me/absent", "hf:a b/c", "hf:me/absent@v2"):
        with pytest.raises(SystemExit):
            main(["compare", name])
        error = capsys.readouterr().err
        assert name in error
        assert error.count("\n") == 1
        assert "HF_HUB_OFFLINE" in error


@pytest.mark.parametrize("net", ["os.system", "eenet.files.os.system", "torch.hub.load"])
def test_a_run_from_the_hub_imports_nothing_foreign(run_dir, hub, net):
    config = run_dir / "stage1/config.yaml"
    content = yaml.safe_load(config.read_text())
    init = {"model": net, "exits": ["a"], "options": {"command": "false"}}
    main(["push", str(run_dir), f"hf:me/{net}"])
    content["model"]["init_args"]["net"] = {"class_path": "eenet.models.Backbone"}
    content["model"]["init_args"]["net"]["init_args"] = init
    run = RunFolder(f"hf:me/{net}")
    run.stage1.config_file.write_text(yaml.safe_dump(content))
    (run.path / "stage1/done.json").unlink(missing_ok=True)
    with pytest.raises(ValueError, match=r"may only name classes of eenet"):
        run.network()


def test_the_hubs_client_is_imported_late():
    code = "import sys, eenet.stage_folder, eenet.cli.push; print('huggingface_hub' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
