"""Working points with finite-sample guarantees on cost, lost quality and disagreement.

Learn then Test (Angelopoulos et al. 2021) in an order of the rules fixed in advance, with the
betting p-values of Waudby-Smith and Ramdas (2020; Bates et al. 2021, proposition 5), or those of
the binomial distribution for losses of 0 and 1: see docs/method.md. The samples must be drawn like
those to come and must not have been used to fit the policy or to set the rules' thresholds.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from eenet.outputs.exit_outputs import ExitOutputs
from eenet.policies.base import Rule, reached_by
from eenet.policies.thresholds import ROUNDING

Bounds = tuple[float, float] | None
"""Least and largest value possible; None for values that are 0 or 1."""


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
    _check_delta(delta)
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


def binomial_p_value(values: Tensor, mean: float) -> Tensor:
    """P-values of the hypotheses that true means are `mean` or more; exact for values of 0 and 1.

    Args:
        values: `[M, N]`, 0 or 1, N independent observations for each of M hypotheses.
        mean: The promise.

    Returns:
        `[M]` float64, the chance of as few ones.
    """
    if not 0 <= mean < 1:  # no mean exceeds 1, and every one exceeds what is negative
        return torch.full(values.shape[:1], float(not mean >= 1), dtype=torch.float64)
    count = values.shape[1]
    law = torch.distributions.Binomial(count, torch.tensor(mean, dtype=torch.float64))
    ones = torch.arange(count + 1, dtype=torch.float64)
    chance: Tensor = law.log_prob(ones).exp()  # type: ignore[no-untyped-call]
    return chance.cumsum(0)[values.sum(1).long()].clamp(max=1.0)


def within_budget(
    rules: Sequence[Rule],
    outputs: ExitOutputs,
    budget: float,
    delta: float,
    cost_range: tuple[float, float] | None = None,
) -> Guaranteed:
    """The most expensive rule whose true mean cost exceeds `budget` with probability at most delta.

    Args:
        rules: From the cheapest to the most expensive, fixed in advance.
        outputs: Calibration samples, labelled or not.
        budget: Mean cost per sample never to exceed, in the unit of the costs.
        delta: Probability of breaking the promise.
        cost_range: Least and largest cost of any sample to come, at any exit; by default those of
            the calibration samples, which is sound where costs do not depend on the sample.

    Raises:
        ValueError: If not even the first rule can be certified.
    """
    spent = reached_by(rules, outputs, outputs.costs.double())
    # The bet needs bounds that hold for all samples to come: what exits cost, not what was spent.
    bounds = _range(outputs.costs if cost_range is None else torch.tensor(cost_range))
    return last_kept(rules, spent, bounds, "budget", budget, delta)


def within_tail(
    rules: Sequence[Rule], outputs: ExitOutputs, limit: float, alpha: float, delta: float
) -> Guaranteed:
    """The most expensive rule of which at most a share `alpha` of the samples costs over `limit`.

    The promise is the quantile: true `P(cost > limit) <= alpha`, but with probability delta.

    Args:
        rules: From the cheapest to the most expensive, fixed in advance.
        outputs: Calibration samples, labelled or not, at any costs: measured milliseconds
            `[E, N]`, say.
        limit: In the unit of the costs.
        alpha: 0.05 promises that 95% of the samples cost `limit` or less.
        delta: Probability of breaking the promise.

    Raises:
        ValueError: If not even the first rule can be certified.
    """
    over = (reached_by(rules, outputs, outputs.costs.double()) > limit * (1 + ROUNDING)).double()
    return last_kept(rules, over, None, "alpha", alpha, delta)


def within_loss(
    rules: Sequence[Rule], outputs: ExitOutputs, epsilon: float, delta: float | None
) -> Guaranteed:
    """The cheapest rule that loses more than `epsilon` of quality with probability at most `delta`.

    The loss is the last exit's mean quality minus the rule's; it need not be monotone in the cost.

    Args:
        rules: From the cheapest to the most expensive, fixed in advance; tested from the last on.
        outputs: Labelled calibration samples.
        epsilon: Largest loss against the full network, in the unit of the quality.
        delta: Probability of breaking the promise. None promises the mean over draws of the
            calibration samples instead, by conformal risk control (Angelopoulos et al. 2022).

    Raises:
        ValueError: If not even the most expensive rule can be certified.
    """
    return cheapest_kept(rules, *losses_of(rules, outputs, "loss"), epsilon, delta)


def within_disagreement(
    rules: Sequence[Rule], outputs: ExitOutputs, epsilon: float, delta: float | None
) -> Guaranteed:
    """The cheapest rule whose answers differ from the full network's in at most `epsilon` of cases.

    No labels are needed, and accuracy cannot fall by more than answers differ. CALM (Schuster et
    al. 2022) calls it textual consistency, RC-EENN (Jazbec et al. 2024) prediction consistency.

    Args:
        rules: From the cheapest to the most expensive, fixed in advance; tested from the last on.
        outputs: Calibration samples with logits, labelled or not.
        epsilon: Largest share of samples whose class is not that of the last exit.
        delta: As in `within_loss`.

    Raises:
        ValueError: If there are no logits, or not even the most expensive rule can be certified.
    """
    return cheapest_kept(rules, *losses_of(rules, outputs, "disagreement"), epsilon, delta)


def losses_of(
    rules: Sequence[Rule], outputs: ExitOutputs, of: Literal["loss", "disagreement"]
) -> tuple[Tensor, Bounds]:
    """What M rules lose on N samples against the last exit.

    Args:
        rules: The rules.
        outputs: Labelled for a "loss".
        of: "loss" of quality, or "disagreement": 1 where the answer is another one, otherwise 0.

    Returns:
        `[M, N]` float64, and the least and largest value possible, None where it is 0 or 1.

    Raises:
        ValueError: If there are no logits whose answers could differ, or no labels.
    """
    if of == "loss":
        quality = outputs.answer_quality().double()
        low, high = _range(quality)
        return quality[-1] - reached_by(rules, outputs, quality), (low - high, high - low)
    if outputs.logits is None:
        raise ValueError("logits: pooled pixels have no classes to compare; ask by loss instead")
    answers = outputs.map(lambda evidence: evidence.prediction)
    return reached_by(rules, outputs, (answers != answers[-1]).double()), None


def cheapest_kept(
    rules: Sequence[Rule],
    losses: Tensor,
    bounds: Bounds,
    epsilon: float,
    delta: float | None,
    name: str = "epsilon",
) -> Guaranteed:
    """The last rule that keeps the promise, from the most expensive down; as `last_kept`."""
    losses = losses.flip(0)
    if delta is None:  # the risk must never fall again: a sample counts with its worst loss so far
        losses = losses.cummax(0).values
    kept = last_kept(rules[::-1], losses, bounds, name, epsilon, delta)
    return kept._replace(position=len(rules) - 1 - kept.position)


def last_kept(
    rules: Sequence[Rule],
    values: Tensor,
    bounds: Bounds,
    name: str,
    most: float,
    delta: float | None,
) -> Guaranteed:
    """The last rule before the first whose true mean of values may lie above `most`.

    Args:
        rules: M of them.
        values: `[M, N]`; at `delta=None` no sample's value may fall from one rule to the next.
        bounds: Least and largest value possible; None if each is 0 or 1, which the exact test of
            the binomial distribution takes.
        name: What `most` is called.
        most: The promise.
        delta: Probability of breaking it; None for the mean.

    Raises:
        ValueError: If it is the first.
    """
    (low, high), samples = bounds or (0.0, 1.0), values.shape[1]
    if delta is None:
        kept = (values.sum(1) + high) / (samples + 1) <= most
    elif bounds is None:
        _check_delta(delta)
        kept = binomial_p_value(values, most) <= delta
    else:
        scaled = (values - low) / (high - low)
        kept = betting_p_value(scaled, (most - low) / (high - low), delta) <= delta
    if not kept[0]:
        how = "on average" if delta is None else f"at delta={delta:g}"
        raise ValueError(
            f"{name}={most:g} cannot be promised {how} from {samples} samples: give more samples, "
            f"a larger {name}, or rules that begin further from it"
        )
    index = int(kept.int().cumprod(0).sum()) - 1
    return Guaranteed(rules[index], index, most - float(values[index].mean()))


def _check_delta(delta: float) -> None:
    if not 0 < delta < 1:
        raise ValueError(f"delta={delta} must lie between 0 and 1")


def _range(values: Tensor) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    return low, high if high > low else low + (abs(low) or 1.0)
