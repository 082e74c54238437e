"""Fits policies on exit outputs from Python, as stage 2 does."""

import logging
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Literal

import lightning as L
import torch

from eenet.data.outputs_data import OutputsData
from eenet.modules.optim import WarmupCosine
from eenet.modules.scheduler import SchedulerModule
from eenet.outputs import ExitOutputs
from eenet.policies import Policy


def fit_policies(
    policies: Sequence[Policy],
    outputs: ExitOutputs,
    budgets: Sequence[float],
    seed: int = 0,
    epochs: int = 100,
    budget_unit: Literal["fraction", "cost"] = "fraction",
) -> None:
    """Fits policies in place as stage 2 does, with the settings of the shipped recipes.

    Args:
        policies: With labels of their own. Those that serve any budget are fitted too.
        outputs: Labelled outputs, or outputs with qualities, that the network was not trained on.
        budgets: Average costs per sample, increasing.
        seed: Seed of initial parameters, batches and the 20% held out to choose the best epoch.
        epochs: Of those that learn by gradient descent.
        budget_unit: "fraction" of the full network's cost, or "cost" for the unit of the costs.

    Raises:
        ValueError: If a budget cannot be met, labels are not different, or there are too few
            samples.
    """
    logger, schedule = logging.getLogger("lightning.pytorch"), partial(WarmupCosine, warmup=0.05)
    level = logger.level
    data = OutputsData.from_outputs(outputs, split_seed=seed)
    module = SchedulerModule(list(policies), list(budgets), budget_unit, lr_scheduler=schedule)
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.filterwarnings("ignore", module="lightning")
        logger.setLevel(logging.ERROR)
        torch.manual_seed(seed)
        trainer = L.Trainer(
            accelerator="cpu",
            barebones=True,
            max_epochs=epochs if module.learned else 1,
            check_val_every_n_epoch=5,
        )
        try:
            trainer.fit(module, data)
        finally:
            logger.setLevel(level)
