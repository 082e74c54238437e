"""Working points with finite-sample guarantees on cost and on lost quality.

Learn then Test (Angelopoulos et al. 2021) in an order of the rules fixed in advance, with the
betting p-values of Waudby-Smith and Ramdas (2020; Bates et al. 2021, proposition 5): see
docs/method.md. The samples must be exchangeable with those to come and must not have been used to
fit the policy or to set the rules' thresholds.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from eenet.outputs.exit_outputs import ExitOutputs
from eenet.policies.base import Rule, decide_all
from eenet.policies.thresholds import at_exits


class Guaranteed(NamedTuple):
    """A rule that keeps a promise with probability 1 - delta."""

    rule: Rule
    """The rule; `rule.cost` is what it spent where its thresholds were set."""
    position: int
    """Its place among the rules given."""
    margin: float
    """Distance between the promise and the calibration mean that the guarantee has to keep."""


def betting_p_value(values: Tensor, mean: float, delta: float) -> Tensor:
    """P-values of the hypotheses that true means are `mean` or more.

    The capital of a bet against the hypothesis, `prod_i (1 - v_i (x_i - m))`, is a non-negative
    supermartingale under it, so by Ville's inequality 1 / (its maximum) is a p-value. The stakes
    `v_i = min(1, sqrt(2 log(1/delta) / (n s_{i-1}^2)))` depend on earlier values only.

    Args:
        values: `[M, N]` in [0, 1], N exchangeable observations for each of M hypotheses.
        mean: In [0, 1].
        delta: Level at which the stakes are best.

    Returns:
        `[M]` float64.
    """
    if not 0 < delta < 1:
        raise ValueError(f"delta={delta} must lie between 0 and 1")
    values = values.double()
    if values.numel() and not (values.min() >= -1e-9 and values.max() <= 1 + 1e-9):
        raise ValueError("values must lie in [0, 1]: the range of the costs does not hold them all")
    count = torch.arange(1, values.shape[1] + 1, dtype=torch.float64, device=values.device)
    average = (0.5 + values.cumsum(1)) / (count + 1)
    variance = (0.25 + (values - average).square().cumsum(1)) / (count + 1)
    before = torch.cat([torch.full_like(variance[:, :1], 0.25), variance[:, :-1]], 1)
    stakes = (-2 * math.log(delta) / (values.shape[1] * before)).sqrt().clamp(max=1.0)
    capital = torch.log1p((-stakes * (values - mean)).clamp_min(-1 + 1e-12)).cumsum(1)
    return (-capital.amax(1)).exp().clamp(max=1.0)


def within_budget(
    rules: Sequence[Rule],
    outputs: ExitOutputs,
    budget: float,
    delta: float,
    cost_range: tuple[float, float] | None = None,
) -> Guaranteed:
    """The dearest rule whose true mean cost exceeds `budget` with probability at most `delta`.

    Args:
        rules: From the cheapest to the dearest, fixed in advance.
        outputs: Calibration samples, labelled or not.
        budget: Mean cost per sample never to exceed, in the unit of the costs.
        delta: Probability of breaking the promise.
        cost_range: Least and largest cost of any sample to come, at any exit; by default those of
            the calibration samples, which is sound where costs do not depend on the sample.

    Raises:
        ValueError: If not even the first rule can be certified.
    """
    spent = _each(rules, outputs, outputs.costs)
    # The bet needs bounds that hold for all samples to come: what exits cost, not what was spent.
    low, span = _range(outputs.costs if cost_range is None else torch.tensor(cost_range))
    p_values = betting_p_value((spent - low) / span, (budget - low) / span, delta)
    remedy = "cheaper rules first, more samples, or a larger budget"
    index = _last_accepted(p_values, delta, f"budget={budget:g}", remedy, outputs.num_samples)
    return Guaranteed(rules[index], index, budget - float(spent[index].double().mean()))


def within_loss(
    rules: Sequence[Rule], outputs: ExitOutputs, epsilon: float, delta: float
) -> Guaranteed:
    """The cheapest rule that loses more than `epsilon` of quality with probability at most `delta`.

    The loss is the last exit's mean quality less the rule's; it need not be monotone in the cost.

    Args:
        rules: From the cheapest to the dearest, fixed in advance; tested from the dearest on.
        outputs: Labelled calibration samples.
        epsilon: Largest loss against the full network, in the unit of the quality.
        delta: Probability of breaking the promise.

    Raises:
        ValueError: If not even the dearest rule can be certified.
    """
    quality = outputs.answer_quality().double()
    loss = (quality[-1] - _each(rules, outputs, quality)).flip(0)
    _, span = _range(quality)
    p_values = betting_p_value((loss / span + 1) / 2, (epsilon / span + 1) / 2, delta)
    remedy = "dearer rules, more samples, or a larger epsilon"
    accepted = _last_accepted(p_values, delta, f"epsilon={epsilon:g}", remedy, outputs.num_samples)
    index = len(rules) - 1 - accepted
    return Guaranteed(rules[index], index, epsilon - float(loss[accepted].mean()))


def _each(rules: Sequence[Rule], outputs: ExitOutputs, values: Tensor) -> Tensor:
    """The samples' values `[M, N]` at the exits that each of M rules chooses."""
    if not rules:
        raise ValueError("rules: there must be one or more")
    return at_exits(values, outputs.map(lambda evidence: decide_all(rules, evidence)))


def _last_accepted(p_values: Tensor, delta: float, promise: str, remedy: str, samples: int) -> int:
    """Index of the last hypothesis before the first that is not rejected; there must be one."""
    rejected = int((p_values <= delta).int().cumprod(0).sum())
    if not rejected:
        raise ValueError(
            f"{promise} cannot be promised at delta={delta:g} from {samples} samples: give {remedy}"
        )
    return rejected - 1


def _range(values: Tensor) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    return low, (high - low) or 1.0
