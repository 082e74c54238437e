"""Asking by quality: the least budget that stays so close to the full network."""

from typing import Literal, NamedTuple

import torch

from eenet.metrics.curve_maths import paired_difference
from eenet.outputs import ExitOutputs
from eenet.policies import LearnedPolicy, Policy, Rule, within_disagreement, within_loss
from eenet.policies.base import reached_by
from eenet.policies.guarantee import agreement

_RULES = 41
"""Budgets that are tried, of a policy that serves any."""


class Asked(NamedTuple):
    """The least budget for a loss of quality, or a disagreement, against the full network."""

    budget: float
    """Fraction of the full network's cost; `policy.at_fraction(budget)` is the rule."""
    max_loss: float
    """The loss that was asked for, in the unit of the quality; or the share of other answers."""
    loss: float
    """Mean loss on the samples."""
    interval: tuple[float, float] | None
    """95% interval of the true loss, at whichever budget is chosen; None where it is promised."""
    delta: float | None
    """Probability of breaking the promise; None if there is none."""
    samples: int
    """Number of samples."""
    of: str = "loss"
    """ "loss" or "disagreement"."""

    def __str__(self) -> str:
        loss = f"budget {self.budget:.3g} for a {self.of} of at most {self.max_loss:g}"
        if self.interval is None:
            return f"{loss}: promised with probability {1 - (self.delta or 0):g}"
        low, high = self.interval
        return (
            f"{loss}: an estimate, {self.loss:.4f} ({low:.4f} to {high:.4f}) on {self.samples} "
            "test samples; train with cal_size for a promise"
        )


def least_budget(
    policy: Policy,
    outputs: ExitOutputs,
    max_loss: float,
    delta: float | None = None,
    of: Literal["loss", "disagreement"] = "loss",
) -> Asked:
    """The least budget at which a policy loses at most `max_loss` against the full network.

    Args:
        policy: Fitted.
        outputs: Samples that it was not fitted on, labelled for a loss. For a promise nothing else
            may depend on them either: a calibration split.
        max_loss: Mean quality of the last exit minus the rule's, or the share of samples whose
            answer is not that of the last exit.
        delta: Probability of breaking the promise (`within_loss`). None promises nothing: the
            cheapest budget whose mean loss is small enough comes with the interval of that loss,
            simultaneous over the budgets tried, so that choosing among them does no harm.
        of: What `max_loss` limits.

    Raises:
        ValueError: If the loss is negative, no budget is known to keep it, or the policy was
            not fitted.
    """
    if not max_loss >= 0:
        raise ValueError(f"max_{of}={max_loss} must be 0 or more; 0.01 is one point of accuracy")
    if not policy.calibration_scores.numel():
        raise ValueError(policy.how_to_fit)
    if isinstance(policy, LearnedPolicy):
        budgets = (policy.budgets / policy.costs[-1]).double().sort().values.tolist()
    else:
        budgets = torch.linspace(policy.least_budget, 1, _RULES, dtype=torch.float64).tolist()
    rules: list[Rule] = [policy.at_fraction(budget) for budget in budgets]
    if delta is not None:
        promise = within_loss if of == "loss" else within_disagreement
        kept = promise(rules, outputs, max_loss, delta)
        spent, lost = budgets[kept.position], max_loss - kept.margin
        return Asked(spent, max_loss, lost, None, delta, outputs.num_samples, of)
    quality = outputs.answer_quality() if of == "loss" else agreement(outputs)
    reached = reached_by(rules, outputs, quality)
    loss = paired_difference(quality[-1].expand_as(reached), reached)
    small = (loss.mean <= max_loss).nonzero()
    if not len(small):
        raise ValueError(
            f"max_{of}={max_loss:g}: {policy.label} has at least {float(loss.mean.min()):.4f} at "
            "the budgets it was fitted for; fit larger ones, or use eenet+, which serves any"
        )
    m = int(small[0])
    mean, low, high = (float(field[m]) for field in loss)
    return Asked(budgets[m], max_loss, mean, (low, high), None, outputs.num_samples, of)
