"""Training techniques: what gets a gradient when, and averaged weights in the checkpoint."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint

from eenet.callbacks.reproducibility import SeedEpochs
from eenet.data import Digits
from eenet.models import CifarResNet, MultiExitNetwork
from eenet.modules import MultiExitModule


def network() -> CifarResNet:
    torch.manual_seed(0)
    return CifarResNet(8, [1, 2, 3], in_channels=1)


def fit(module: MultiExitModule, ckpt_path: Path | None = None, **settings: Any) -> None:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(
        accelerator="cpu", limit_train_batches=4, limit_val_batches=1, **quiet, **settings
    )
    trainer.fit(module, Digits(), ckpt_path=ckpt_path, weights_only=True)


class Gradients(L.Callback):
    """Which exits' heads got a gradient, batch by batch."""

    def __init__(self) -> None:
        self.rows: list[list[bool]] = []

    def on_after_backward(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.rows.append([bool(head[-1].weight.grad.any()) for head in pl_module.net.heads])


def test_mixed_training_begins_with_the_last_exit_alone() -> None:
    seen = Gradients()
    module = MultiExitModule(network(), last_exit_first=0.5, distill_weight=1.0, distill_from=0.0)
    fit(module, max_epochs=2, callbacks=[seen], enable_checkpointing=False)
    assert seen.rows == [[False, False, True]] * 4 + [[True, True, True]] * 4


def stage_gradient(net: MultiExitNetwork, exit_index: int) -> torch.Tensor:
    """Gradient that one exit's logits leave at the output of the first stage."""
    features = []
    net.stages[0].register_forward_hook(lambda _, __, out: features.append(out))
    logits = net.train()(torch.randn(2, 1, 8, 8))
    return torch.autograd.grad(logits[exit_index].sum(), features[0])[0]


def test_partitioned_features_serve_their_own_exit_alone() -> None:
    net = network()
    MultiExitModule(net, partition=0.25)
    x = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(net.eval()(x), network().eval()(x), rtol=0, atol=0)
    later = stage_gradient(net, 2)
    assert later[:, :12].any()
    assert not later[:, 12:].any()
    assert stage_gradient(net, 0)[:, 12:].any()


def test_fractions_are_checked() -> None:
    for name in ("distill_from", "last_exit_first", "partition"):
        with pytest.raises(ValueError, match=rf"{name}=1\.5 must be a fraction"):
            MultiExitModule(network(), **{name: 1.5})  # type: ignore[arg-type]


def averaged(folder: Path, epochs: int, ckpt_path: Path | None = None) -> dict[str, Any]:
    save = ModelCheckpoint(folder, "best", monitor="val/acc_mean", mode="max", save_last=True)
    callbacks = [SeedEpochs(), EMAWeightAveraging(decay=0.5), save]
    fit(
        MultiExitModule(network(), distill_weight=0.0),
        ckpt_path,
        max_epochs=epochs,
        callbacks=callbacks,
    )
    content: dict[str, Any] = torch.load(folder / "last.ckpt", weights_only=True)
    return content


def test_averaged_weights_are_in_the_checkpoint_and_resume(tmp_path: Path) -> None:
    straight = averaged(tmp_path / "straight", 2)
    averaged(tmp_path / "cut", 1)
    resumed = averaged(tmp_path / "cut", 2, tmp_path / "cut" / "last.ckpt")
    name = "stages.0.0.0.weight"
    for state in ("state_dict", "current_model_state"):
        assert torch.equal(resumed[state][f"net.{name}"], straight[state][f"net.{name}"])
    net = network()
    MultiExitModule(net, start_from=str(tmp_path / "cut" / "last.ckpt"))
    weight = net.state_dict()[name]
    assert torch.equal(weight, straight["state_dict"][f"net.{name}"])
    assert not torch.equal(weight, straight["current_model_state"][f"net.{name}"])
