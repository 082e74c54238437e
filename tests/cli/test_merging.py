"""A class named in place of another one's inherits none of its settings, wherever it is named."""

from pathlib import Path

import pytest
import yaml

from eenet.cli import main

CONFIG = Path("tests/conf/tiny.yaml")
MINE = """
from eenet.models import MultiExitNetwork
class Mine(MultiExitNetwork):
    def __init__(self, num_classes: int = 10, dim: int = 32, depth: int = 3, exits: int = 2):
        pass
"""


@pytest.fixture
def resolved(tmp_path, monkeypatch, capsys):
    """What a command makes of the tiny recipe with other flags, or another YAML after it."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)

    def resolve(command, *flags, more=None):
        config = yaml.safe_load(CONFIG.read_text())
        config = config if command == "pipeline" else config["stage1"]
        files = [config] if more is None else [config, more]
        words = [command]
        for number, content in enumerate(files):
            path = tmp_path / f"{number}.yaml"
            path.write_text(yaml.safe_dump(content))
            words += ["--config", str(path)]
        with pytest.raises(SystemExit):
            main([*words, *flags, "--print_config"])
        text = capsys.readouterr()
        assert text.out, text.err
        config = yaml.safe_load(text.out)
        return config if command == "pipeline" else {"stage1": config}

    return resolve


OWN = {"num_classes": 10, "dim": 32, "depth": 3, "exits": 2}


@pytest.mark.parametrize("command", ["pipeline", "fit"])
def test_a_network_of_the_users_own(resolved, command):
    prefix = "--stage1." if command == "pipeline" else "--"
    config = resolved(command, f"{prefix}model.init_args.net", "mine.Mine")
    assert config["stage1"]["model"]["init_args"]["net"]["init_args"] == OWN
    flags = [f"{prefix}model.init_args.net", "mine.Mine"]
    flags += [f"{prefix}model.init_args.net.init_args.depth", "5"]
    config = resolved(command, *flags)
    assert config["stage1"]["model"]["init_args"]["net"]["init_args"] == OWN | {"depth": 5}
    net = {"class_path": "mine.Mine", "init_args": {"dim": 7}}
    more = {"model": {"init_args": {"net": net}}}
    config = resolved(command, more={"stage1": more} if command == "pipeline" else more)
    assert config["stage1"]["model"]["init_args"]["net"]["init_args"] == OWN | {"dim": 7}


def test_the_same_class_keeps_its_settings_by_whatever_path(resolved):
    for path in ("eenet.models.CifarResNet", "eenet.models.resnet.CifarResNet"):
        flags = ["--model.init_args.net", path, "--model.init_args.net.init_args.exits", "[2,6]"]
        net = resolved("fit", *flags)["stage1"]["model"]["init_args"]["net"]["init_args"]
        assert (net["depth"], net["exits"]) == (14, [2, 6])


def test_optimizers_data_loggers_and_lists(resolved):
    init = resolved("fit", "--model.init_args.optimizer", "torch.optim.RMSprop")["stage1"]["model"]
    settings = init["init_args"]["optimizer"]["init_args"]
    assert (settings["lr"], settings["momentum"]) == (0.01, 0)  # its own defaults
    data = {"class_path": "eenet.data.CIFAR10", "init_args": {"root": "r", "val_size": 5}}
    assert resolved("fit", more={"data": data})["stage1"]["data"]["init_args"]["cal_size"] == 0

    logger = ["{class_path: lightning.pytorch.loggers.CSVLogger, init_args: {save_dir: s}}"] * 2
    config = resolved("fit", f"--trainer.logger=[{', '.join(logger)}]")
    for entry in config["stage1"]["trainer"]["logger"]:
        assert entry["init_args"]["name"] == "lightning_logs"  # not "logs", as at its place before
    policies = "[eenet.policies.EENet, eenet.policies.Margin, eenet.policies.Random]"
    config = resolved("pipeline", f"--stage2.model.init_args.policies={policies}")
    eenet, *_ = config["stage2"]["model"]["init_args"]["policies"]
    assert eenet["init_args"]["alternate"] == 10  # not 2, as at its place before
