"""Fits policies on exit outputs from Python, as stage 2 does."""

import logging
import warnings
from functools import partial

import lightning as L
import torch

from eenet.data.exit_outputs import OutputsData
from eenet.modules.optim import WarmupCosine
from eenet.modules.scheduler import SchedulerModule
from eenet.outputs import ExitOutputs
from eenet.policies import Policy


def fit_policies(
    policies: list[Policy], outputs: ExitOutputs, budgets: list[float], seed: int, epochs: int
) -> None:
    """Fits policies in place as stage 2 does, with the settings of the shipped recipes.

    Args:
        policies: With labels of their own.
        outputs: Labelled.
        budgets: In the unit of the costs, increasing.
        seed: Seed of initial parameters, batches and the 20 % held out to choose the best epoch.
        epochs: Of those that learn by gradient descent.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    torch.manual_seed(seed)
    data = OutputsData(split_seed=seed)
    data._loaded["fit"] = outputs
    schedule = partial(WarmupCosine, warmup=0.05)
    module = SchedulerModule(policies, budgets, "cost", lr_scheduler=schedule)
    epochs = epochs if module.learned else 1
    trainer = L.Trainer(
        accelerator="cpu", barebones=True, max_epochs=epochs, check_val_every_n_epoch=5
    )
    trainer.fit(module, data)
