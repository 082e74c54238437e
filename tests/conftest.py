"""Small exit outputs to test on, and a quiet, offline environment."""

import os
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_SILENT", "true")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import settings

from eenet.outputs import ExitOutputs

torch.set_num_threads(1)
settings.register_profile("fast", max_examples=50, deadline=None, derandomize=True)
settings.register_profile("thorough", max_examples=500, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))


def make_outputs(
    exits: int = 3,
    samples: int = 400,
    classes: int = 5,
    seed: int = 0,
    per_sample_costs: bool = False,
    **fields: Any,
) -> ExitOutputs:
    """Outputs of a pretended network whose later exits know more about the label."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (samples,), generator=generator)
    signal = torch.nn.functional.one_hot(labels, classes).float()
    ease = torch.rand(samples, 1, generator=generator) * 4
    noise = torch.randn(exits, samples, classes, generator=generator)
    strength = torch.linspace(0.5, 1.5, exits)[:, None, None]
    logits = strength * ease * signal + noise.cumsum(0) / torch.arange(1, exits + 1)[:, None, None]
    costs = torch.linspace(1.0, 10.0, exits, dtype=torch.float64)
    if per_sample_costs:
        costs = costs[:, None] * (0.5 + torch.rand(samples, generator=generator))
    return ExitOutputs(**{"costs": costs, "logits": logits, "labels": labels, **fields})


@pytest.fixture
def outputs() -> ExitOutputs:
    return make_outputs()


@pytest.fixture(autouse=True)
def _own_wandb_service() -> None:
    """What a test starts must not find the W&B service, and its runs, that another one left."""
    os.environ.pop("WANDB_SERVICE", None)
