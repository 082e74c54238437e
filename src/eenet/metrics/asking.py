"""Asking by quality or latency: the budget that keeps a limit on either."""

from functools import cached_property
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from eenet.metrics.curve_maths import Difference, paired_difference
from eenet.outputs import ExitOutputs
from eenet.policies import LearnedPolicy, Policy, Rule
from eenet.policies.base import reached_by
from eenet.policies.guarantee import cheapest_kept, last_kept, losses_of

_RULES = 41
"""Budgets that are tried, of a policy that serves any."""
_UNKNOWN = 0.01
"""Share of an exit's latencies beyond the quantile that is measured."""


class Asked(NamedTuple):
    """The budget for a limit on the lost quality, on other answers or on late ones."""

    budget: float
    """Fraction of the full network's cost; `policy.at_fraction(budget)` is the rule."""
    max_loss: float
    """The loss that was asked for, in the unit of the quality; or the share of other answers, or of
    late ones."""
    loss: float
    """Mean loss on the samples, or that share."""
    interval: tuple[float, float] | None
    """95% interval of the true loss, at whichever budget is chosen; None where it is promised."""
    delta: float | None
    """Probability of breaking the promise; None if there is none."""
    samples: int
    """Number of samples."""
    of: str = "loss"
    """ "loss", "disagreement" or "share above ... ms"."""

    def __str__(self) -> str:
        loss = f"budget {self.budget:.3g} for a {self.of} of at most {self.max_loss:g}"
        if self.interval is None:
            return f"{loss}: promised with probability {1 - (self.delta or 0):g}"
        low, high = self.interval
        return (
            f"{loss}: an estimate, {self.loss:.4f} ({low:.4f} to {high:.4f}) on {self.samples} "
            "test samples; train with cal_size for a promise"
        )


class Losses:
    """What a policy loses on some samples at each of its budgets, to answer any limit on it.

    Args:
        policy: Fitted.
        outputs: Samples that it was not fitted on, labelled for a loss.
        of: "loss" of quality against the last exit, or "disagreement" with its answers.

    Raises:
        ValueError: If the policy was not fitted.
    """

    def __init__(
        self, policy: Policy, outputs: ExitOutputs, of: Literal["loss", "disagreement"] = "loss"
    ) -> None:
        self.label, self.of = policy.label, of
        self.budgets, self.rules = _rules_of(policy)
        self.losses, self.bounds = losses_of(self.rules, outputs, of)

    @cached_property
    def estimate(self) -> Difference:
        """Mean losses, and intervals simultaneous over the budgets, so that choosing is safe."""
        return paired_difference(self.losses, torch.zeros_like(self.losses))

    def at_most(self, limit: float, delta: float | None = None) -> Asked:
        """The least budget that keeps a limit; arguments and errors as for `least_budget`."""
        if not limit >= 0:
            raise ValueError(
                f"max_{self.of}={limit} must be 0 or more; 0.01 is one point of accuracy"
            )
        count = self.losses.shape[1]
        if delta is not None:
            name = f"max_{self.of}"
            kept = cheapest_kept(self.rules, self.losses, self.bounds, limit, delta, name)
            found, lost = self.budgets[kept.position], limit - kept.margin
            return Asked(found, limit, lost, None, delta, count, self.of)
        small = (self.estimate.mean <= limit).nonzero()
        if not len(small):
            raise ValueError(
                f"max_{self.of}={limit:g}: {self.label} has at least "
                f"{float(self.estimate.mean.min()):.4f} at the budgets it was fitted for; fit "
                "larger ones, or use eenet+, which serves any"
            )
        m = int(small[0])
        mean, low, high = (float(field[m]) for field in self.estimate)
        return Asked(self.budgets[m], limit, mean, (low, high), None, count, self.of)


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
    return Losses(policy, outputs, of).at_most(max_loss, delta)


def budget_within_ms(
    policy: Policy,
    outputs: ExitOutputs,
    ms: Tensor,
    max_ms: float,
    tail: float = 0.05,
    delta: float | None = None,
) -> Asked:
    """The largest budget at which all but a share `tail` of the samples take at most `max_ms`.

    A sample counts as late where the 99% quantile of its exit's latency lies above the limit. One
    percent of the others may be late too, so the share of late exits is kept below `tail - 0.01`.

    Args:
        policy: Fitted.
        outputs: As for `least_budget`; no labels are needed.
        ms: `[E]`, 99% quantile of the milliseconds to each exit.
        max_ms: Latency not to exceed.
        tail: Largest share of the samples that may exceed it, above 0.01.
        delta: Probability of breaking the promise (as `within_tail`); None estimates, as there.

    Returns:
        The budget; the loss and its interval are those of the late share, the one percent included.

    Raises:
        ValueError: If the tail is too small, exit 1 is late, no budget is known to keep the limit,
            or the policy was not fitted.
    """
    if not _UNKNOWN < tail < 1:
        raise ValueError(
            f"tail={tail} must be above {_UNKNOWN}, for latencies are known to their 99% quantile, "
            "and below 1"
        )
    if not ms[0] <= max_ms:
        raise ValueError(f"max_ms={max_ms:g}: exit 1 alone takes {float(ms[0]):.3g} ms")
    budgets, rules = _rules_of(policy)
    of, share = f"share above {max_ms:g} ms", tail - _UNKNOWN
    late_exits, count = reached_by(rules, outputs, (ms > max_ms).double()), outputs.num_samples
    if delta is not None:
        try:
            kept = last_kept(rules, late_exits, None, "tail", share, delta)
        except ValueError as error:
            raise ValueError(
                f"max_ms={max_ms:g}, tail={tail:g} cannot be promised at delta={delta:g} from "
                f"{count} samples: give more samples, a larger max_ms or tail, or another policy"
            ) from error
        return Asked(budgets[kept.position], tail, tail - kept.margin, None, delta, count, of)
    estimate = paired_difference(late_exits, torch.zeros_like(late_exits))
    m = int((estimate.mean <= share).int().cumprod(0).sum()) - 1
    if m < 0:
        raise ValueError(
            f"max_ms={max_ms:g}: at {policy.label}'s least budget a share of "
            f"{float(estimate.mean[0]) + _UNKNOWN:.3f} is late, more than tail={tail:g}"
        )
    mean, low, high = (float(field[m]) + _UNKNOWN for field in estimate)
    return Asked(budgets[m], tail, mean, (low, high), None, count, of)


def _rules_of(policy: Policy) -> tuple[list[float], list[Rule]]:
    """The budgets to try, as fractions in increasing order, and their rules."""
    if not policy.calibration_scores.numel():
        raise ValueError(policy.how_to_fit)
    if isinstance(policy, LearnedPolicy):
        budgets = (policy.budgets / policy.costs[-1]).double().sort().values.tolist()
    else:
        budgets = torch.linspace(policy.least_budget, 1, _RULES, dtype=torch.float64).tolist()
    return budgets, [policy.at_fraction(budget) for budget in budgets]
