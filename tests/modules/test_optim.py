"""Whatever depends on the length of training: self-distillation, schedules, a learning rate."""

import logging
import math
from functools import partial

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler, Timer
from lightning.pytorch.tuner import Tuner
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from eenet.models import CifarResNet
from eenet.modules import MultiExitModule, WarmupCosine

pytestmark = pytest.mark.filterwarnings("ignore:You defined a .validation_step.")
BATCHES = 2
SCHEDULE = partial(WarmupCosine, warmup=0.25)


def batches(size=8):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(BATCHES * size, 1, 8, 8, generator=generator)
    return TensorDataset(x, torch.randint(10, (len(x),), generator=generator))


class Endless(IterableDataset):
    def __iter__(self):
        return iter(batches())


class Recorded(MultiExitModule):
    """Keeps the loss and the learning rate of every step."""

    def __init__(self, scheduler=None, **settings):
        torch.manual_seed(0)
        net = CifarResNet(depth=8, exits=[1, 3], in_channels=1, widths=[4, 4, 4])
        settings = {"distill_weight": 100.0, "distill_from": 0.7} | settings
        optimizer = partial(torch.optim.SGD, lr=0.01)
        super().__init__(net, optimizer, scheduler, **settings)
        self.losses, self.rates = [], []

    def on_before_backward(self, loss):
        self.losses.append(loss.item())
        self.rates.append(self.optimizers().param_groups[0]["lr"])


def fit(module, data=None, ckpt_path=None, **settings):
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    quiet |= {"accelerator": "cpu", "limit_val_batches": 0, "enable_checkpointing": False}
    trainer = L.Trainer(**quiet | settings)
    trainer.fit(module, DataLoader(data or batches(), 8), ckpt_path=ckpt_path)
    return trainer


def test_epochs_steps_and_time_are_the_same_length(monkeypatch):
    reference = Recorded(SCHEDULE)
    fit(reference, max_epochs=4)
    losses = torch.tensor(reference.losses)
    assert losses[6:].min() > 1.5 * losses[:6].max()  # 0.7 of 8 steps: from the seventh on
    progress = torch.arange(1, 9).double() / 9
    expected = 0.005 * (1 + (math.pi * (progress - 0.25) / 0.75).cos())
    expected = torch.where(progress < 0.25, 0.01 * progress / 0.25, expected)
    assert reference.rates[1:] == pytest.approx(expected.tolist()[1:])
    for settings in ({"max_steps": 8}, {"max_steps": 8, "max_epochs": 100}):
        module = Recorded(SCHEDULE)
        fit(module, **settings)
        assert (module.losses, module.rates) == (reference.losses, reference.rates)

    # A clock on which every step takes a second.
    module = Recorded(SCHEDULE)
    monkeypatch.setattr(Timer, "time_elapsed", lambda *_: float(len(module.losses)))
    fit(module, max_epochs=-1, max_time="00:00:00:08")
    assert module.losses[1:] == pytest.approx(reference.losses[1:], rel=0.2)
    assert module.rates[1:] == pytest.approx(reference.rates[1:])
    assert len(module.losses) == 8


def test_a_training_without_an_end_is_refused_where_that_matters():
    with pytest.raises(ValueError, match="give max_epochs, max_steps or max_time"):
        fit(Recorded(SCHEDULE), max_epochs=-1)
    with pytest.raises(ValueError, match="give max_epochs, max_steps or max_time"):
        fit(Recorded(), max_epochs=-1)
    with pytest.raises(ValueError, match=r"give trainer\.max_steps"):
        fit(Recorded(SCHEDULE), Endless(), max_epochs=3)


def test_where_steps_cannot_be_known_epochs_count():
    reference = Recorded(distill_from=0.75)
    fit(reference, max_epochs=4)
    for data, callbacks in ((Endless(), None), (None, [GradientAccumulationScheduler({1: 1})])):
        module = Recorded(distill_from=0.75)
        fit(module, data, max_epochs=4, callbacks=callbacks)
        assert module.losses == reference.losses


def test_a_resumed_training_takes_its_new_length(tmp_path):
    module = Recorded(SCHEDULE)
    fit(module, max_epochs=1).save_checkpoint(tmp_path / "last.ckpt")
    resumed, straight = Recorded(SCHEDULE), Recorded(SCHEDULE)
    fit(resumed, max_epochs=4, ckpt_path=str(tmp_path / "last.ckpt"))
    fit(straight, max_epochs=4)
    assert resumed.rates[1:] == straight.rates[3:]


def test_one_cycle_steps_every_batch_and_must_be_as_long_as_the_training():
    module = Recorded(partial(OneCycleLR, max_lr=0.1, total_steps=8))
    fit(module, max_epochs=4)
    optimizer = torch.optim.SGD([torch.zeros(1)])
    schedule, rates = OneCycleLR(optimizer, max_lr=0.1, total_steps=8), []
    for _ in range(8):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert module.rates == pytest.approx(rates)
    with pytest.raises(ValueError, match="total_steps=7, but the training takes 8"):
        fit(Recorded(partial(OneCycleLR, max_lr=0.1, total_steps=7)), max_epochs=4)


def test_lightning_finds_a_learning_rate(tmp_path):
    module, data = Recorded(), DataLoader(batches(), 8)
    settings = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
    trainer = L.Trainer(accelerator="cpu", max_epochs=20, default_root_dir=tmp_path, **settings)
    found = Tuner(trainer).lr_find(module, data, num_training=20, early_stop_threshold=None)
    assert module.lr == found.suggestion()
    module.rates.clear()
    fit(module, max_epochs=1)
    assert module.rates == [module.lr] * BATCHES
