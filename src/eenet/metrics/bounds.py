"""What no policy, and what a policy without any information, can reach."""

import torch
import torch.nn.functional as F
from torch import Tensor

from eenet.outputs import ExitOutputs
from eenet.outputs.exit_outputs import mean_costs, per_sample
from eenet.policies import EENetPlus
from eenet.policies.thresholds import tilt


def oracle_curve(costs: Tensor, quality: Tensor) -> tuple[Tensor, Tensor]:
    """The best curve of a policy that knows every exit's quality in advance.

    For each sample the upper concave envelope of its (cost, quality) points is climbed; the
    climbs of all samples are bought steepest first (a fractional knapsack, hence exact up to one
    sample). No policy can come near: much of it is luck of a wrong-then-right exit.

    Args:
        costs: `[E]` or `[E, N]`.
        quality: `[E, N]`.

    Returns:
        Mean cost and mean quality, each `[P]` float64 with non-decreasing cost; draw straight
        lines between the points (`quality_at`). The first point is the first exit, the last one
        the best exit of each sample at its least cost: in accuracy, "as early as any is right".
    """
    quality = quality.double()
    costs = per_sample(costs.double(), quality.shape[1])
    samples = torch.arange(quality.shape[1])
    at = torch.zeros_like(samples)
    spent, gained = [], []
    for _ in range(len(costs)):
        price = costs - costs[at, samples]
        gain = quality - quality[at, samples]
        slope = (gain / price.clamp_min(1e-300)).where((gain > 0) & (price >= 0), -torch.inf)
        steepest, to = slope.max(0)
        # Of equally steep steps the longest, to end on the envelope's own corners.
        tied = slope >= steepest * (1 - 1e-12)
        to = torch.where(tied, costs, -torch.inf).argmax(0)
        to = torch.where(steepest > 0, to, at)
        spent.append(costs[to, samples] - costs[at, samples])
        gained.append(quality[to, samples] - quality[at, samples])
        at = to
    cost, gain = torch.cat(spent), torch.cat(gained)
    cost, gain = cost[gain > 0], gain[gain > 0]
    order = (gain / cost.clamp_min(1e-300)).argsort(descending=True, stable=True)
    cost, gain = (F.pad(x[order].cumsum(0), (1, 0)) / len(samples) for x in (cost, gain))
    return costs[0].mean() + cost, quality[0].mean() + gain


def mixture_curve(costs: Tensor, quality: Tensor) -> tuple[Tensor, Tensor]:
    """The best fixed mixture of exits, as `oracle_curve`: the concave envelope of their means.

    Args:
        costs: `[E]` or `[E, N]`.
        quality: `[E, N]`.
    """
    return oracle_curve(mean_costs(costs)[:, None], quality.double().mean(1, keepdim=True))


def random_curve(costs: Tensor, quality: Tensor) -> tuple[Tensor, Tensor]:
    """Expected quality of leaving at random with a geometric exit distribution.

    Args:
        costs: `[E]` or `[E, N]`.
        quality: `[E, N]`.

    Returns:
        Mean cost and mean quality, as `oracle_curve`.
    """
    means = mean_costs(costs), quality.double().mean(1)
    strengths = torch.linspace(-30, 30, 601).tolist()
    shares = torch.stack([tilt(torch.ones(len(quality)), s) for s in strengths]).to(means[0])
    return shares @ means[0], shares @ means[1]


def stopping_curves(outputs: ExitOutputs) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Two curves around the best that optimal stopping on the evidence could reach on samples.

    EENet+ learns from the very samples reported on, which no contestant may. Its out-of-fold
    curve is what carries over from four fifths of them to the rest, too low for want of samples;
    its curve on its own samples is too high by what it learned by heart (so the bracket of Mak,
    Morton and Wood 1999). An estimate for its kind of score, not a bound for every policy.

    Args:
        outputs: Labelled outputs.

    Returns:
        The lower and the upper curve, each mean cost, as a fraction of the full network's, and
        mean quality.
    """
    policy, quality = EENetPlus(soft=0).fit(outputs), outputs.answer_quality()
    curves = []
    for family in (policy.family(), policy.calibrate(outputs).family()):
        curves.append((family.cost / outputs.mean_costs[-1], family.climb(quality)))
    return curves[0], curves[1]


def share_closed(quality: Tensor, floor: Tensor, reference: Tensor) -> Tensor:
    """Share of the gap between a floor and a reference that is closed.

    Args:
        quality: Qualities of a policy.
        floor: Those of random exits, of the same shape.
        reference: Those of the best heuristic, of the same shape.

    Returns:
        0 at the floor, 1 at the reference; NaN where these two are equal.
    """
    way = reference - floor
    return torch.where(way == 0, torch.nan, (quality - floor) / way)
