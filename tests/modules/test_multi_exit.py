"""Batches, labels and heads of another form are refused in one line; a plain Trainer works."""

import lightning as L
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from eenet.callbacks.collect import CollectOutputs
from eenet.models import MultiExitNetwork
from eenet.modules import MultiExitModule
from eenet.outputs import load_outputs

X, Y = torch.randn(6, 1, 8, 8), torch.tensor([0, 1, 2, 0, 1, 2])


class Net(MultiExitNetwork):
    """Two exits whose heads pool, or leave a map, or differ."""

    def __init__(self, heads="pool", num_classes=3):
        pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        ends = {"pool": (pool, pool), "map": ((), ()), "mixed": (pool, ())}[heads]
        made = [nn.Sequential(nn.Conv2d(2, 3, 1), *end) for end in ends]
        super().__init__([nn.Conv2d(1, 2, 1), nn.Conv2d(2, 2, 1)], made, num_classes)


def trainer(folder, **settings):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    quiet |= {"accelerator": "cpu", "enable_checkpointing": False, "max_epochs": 1}
    return L.Trainer(**quiet | settings, default_root_dir=folder)


@pytest.mark.parametrize(
    ("net", "labels", "message"),
    [
        ({}, Y.float(), "one class index per sample.*regression"),
        ({}, torch.eye(3)[Y].long(), "several labels per sample are not supported"),
        ({"heads": "map"}, Y, r"logits \[batch, 3\] for these labels, got \[6, 3, 8, 8\]"),
        ({"heads": "mixed"}, Y, r"one shape, got \[\[6, 3\], \[6, 3, 8, 8\]\]"),
        ({"num_classes": 4}, Y, r"logits \[batch, 4\].*got \[6, 3\]"),
        ({}, torch.zeros(6, 6, 6).long(), r"logits \[batch, 3, height, width\].*got \[6, 3\]"),
        ({}, None, "a pair of inputs and labels, got Tensor"),
    ],
)
@pytest.mark.parametrize("method", ["fit", "predict"])
def test_what_does_not_fit_is_named(tmp_path, net, labels, message, method):
    data = TensorDataset(X, labels) if labels is not None else X
    loader = DataLoader(data, 6)
    with pytest.raises(ValueError, match=message):
        getattr(trainer(tmp_path), method)(MultiExitModule(Net(**net)), loader)


def test_fewer_than_two_classes_are_refused():
    with pytest.raises(ValueError, match=r"num_classes=1 must be 2 or more"):
        Net(num_classes=1)


def test_a_plain_trainer_collects_outputs_of_plain_loaders(tmp_path):
    module, loader = MultiExitModule(Net()), DataLoader(TensorDataset(X, Y.to(torch.uint8)), 4)
    trainer(tmp_path, callbacks=[CollectOutputs()]).predict(module, loader)
    outputs = load_outputs(tmp_path / "outputs/test.safetensors")
    assert torch.equal(outputs.labels, Y)
    assert torch.allclose(outputs.logits, module(X), atol=1e-6)
    assert len(outputs.costs) == 2
