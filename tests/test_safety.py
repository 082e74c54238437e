"""Files from strangers are read, never run."""

import os

import pytest
import torch

from eenet.cli import main
from eenet.files import load_tensors
from eenet.models import CifarResNet, TorchvisionBackbone
from eenet.modules.multi_exit import MultiExitModule
from eenet.outputs import load_outputs


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture
def crafted(tmp_path):
    """A checkpoint that would make a folder; checks afterwards that it did not."""
    torch.save({"state_dict": {"net.x": Payload(str(tmp_path / "ran"))}}, tmp_path / "best.ckpt")
    yield str(tmp_path / "best.ckpt")
    assert not (tmp_path / "ran").exists()
    torch.load(tmp_path / "best.ckpt", weights_only=False)  # the payload does work
    assert (tmp_path / "ran").exists()


def network():
    return CifarResNet(8, [1, 3], 10, widths=(8, 8, 8))


def test_a_crafted_file_is_refused_wherever_weights_are_read(crafted):
    with pytest.raises(ValueError, match=r"best\.ckpt cannot be loaded safely"):
        MultiExitModule(network(), start_from=crafted)
    with pytest.raises(ValueError, match=r"best\.ckpt cannot be loaded safely"):
        TorchvisionBackbone("resnet18", ["layer1"], weights=crafted)
    with pytest.raises(ValueError, match="safetensors"):
        load_outputs(crafted)


def test_a_crafted_checkpoint_ends_a_command_with_one_error(crafted, tmp_path, capsys):
    config = ["--model", "eenet.modules.multi_exit.MultiExitModule"]
    config += ["--model.net", "eenet.models.CifarResNet", "--model.net.depth=8"]
    config += ["--model.net.exits=[1,3]", "--model.net.in_channels=1", "--data=eenet.data.Digits"]
    config += [f"--trainer.default_root_dir={tmp_path}", "--trainer.logger=false"]
    with pytest.raises(SystemExit) as ended:
        main(["test", *config, f"--ckpt_path={crafted}"])
    assert ended.value.code == 2
    assert "eenet: error: Weights only load failed" in capsys.readouterr().err


@pytest.mark.parametrize("kept", [0, 1, 100, -1])
def test_a_file_cut_off_is_named(tmp_path, kept):
    path = tmp_path / "weights.pt"
    torch.save(network().state_dict(), path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"weights\.pt (is corrupt|cannot be loaded safely)"):
        load_tensors(path)
