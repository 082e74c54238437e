"""What the report shows, as plain numbers: exit outputs and fitted policies in, a dict out."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from scipy.stats import t as student
from torch import Tensor

from eenet import metrics as m
from eenet.metrics.curve_maths import exit_means, mean_at, relative
from eenet.outputs import ExitOutputs
from eenet.outputs.evidence import Evidence
from eenet.policies import Policy, Rule
from eenet.policies.base import decide_all, scores_of
from eenet.policies.thresholds import at_exits
from eenet.report.calibration import bars, reliability
from eenet.report.guarantees import DELTA, budgets_by_loss, control_track, promises
from eenet.report.importance import importance

BINS = 25
"""Bars of a score histogram."""
_STOPS = 33
"""Budgets of the slider, besides those of the run."""
_CLASSES = 24
"""Most rows of the table of classes: half of those that leave earliest, half of the latest."""


class Run(NamedTuple):
    """A finished run: outputs, policies fitted on `val`, and budgets in fractions of the full."""

    val: ExitOutputs
    test: ExitOutputs
    policies: dict[str, Policy]
    budgets: list[float]
    cal: ExitOutputs | None = None


class Decided(NamedTuple):
    """A policy at M budgets on N test samples."""

    budgets: list[float]
    """Fractions of the full network's cost."""
    rules: list[Rule]
    exits: Tensor
    """`[M, N]`, from 0."""


def decide(policy: Policy, run: Run, evidence: Evidence) -> Decided:
    """Rules of one of a run's policies at its budgets, and in between where it serves any.

    They decide by `evidence`, that of `run.test`, `[E, N]`.
    """
    budgets = run.budgets
    if policy.any_budget:
        budgets = sorted({*budgets, *torch.linspace(policy.least_budget, 1, _STOPS).tolist()})
    rules = [policy.at_fraction(budget) for budget in budgets]
    return Decided(budgets, rules, decide_all(rules, evidence))


def report_data(runs: Sequence[Run]) -> dict[str, Any]:
    """Everything that the figures and the page draw, but the examples.

    Curves, bounds and exits are means over the runs. All else is of the first run: details of
    one network.

    Args:
        runs: Of one set-up, which differ in their seeds.

    Returns:
        "curves" by policy, with 95% intervals: Student's over the runs if there are several,
        otherwise bootstrap intervals over the test samples, simultaneous over the budgets; "floor"
        and "oracle" at the "grid" of budgets; "policies", details at each budget; "reliability" of
        each exit; "importance" of the scheduler's inputs; "asked", budgets by loss; "control" and
        "promises". Costs are fractions of the full network's, exits count from 0.
    """
    run = runs[0]
    labels = sorted(run.policies, key=lambda x: not run.policies[x].nested)
    reference = labels[0]
    budget = run.budgets[nearest(run.budgets, 0.5)]
    pairs = [relative(run.test) for run in runs]
    exit_costs, exit_quality = exit_means(pairs)
    start = max(float(cost[0].mean()) for cost, _ in pairs)
    grid = sorted({*torch.linspace(start, 1, _STOPS).tolist(), *run.budgets})
    evidence = [each.test.evidence() for each in runs]
    decided = {
        label: [decide(r.policies[label], r, e) for r, e in zip(runs, evidence, strict=True)]
        for label in labels
    }

    def bound(curve: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Tensor:
        at = torch.tensor(grid, dtype=torch.float64).clamp_min(start)
        return mean_at([curve(*pair) for pair in pairs], at)

    policies = {x: _details(own[0], evidence[0], *pairs[0]) for x, own in decided.items()}
    weights, order = _class_weights(run.test), None
    if weights is not None:
        for label, (own, *_) in decided.items():
            left = _class_shares(own.exits, weights, run.test.num_exits)
            if order is None:
                order = _ordered_classes(left[nearest(own.budgets, budget)])
            policies[label]["classes"] = left[:, order]
    return {
        "runs": len(runs),
        "samples": run.test.num_samples,
        "fitted_on": run.val.num_samples,
        "measure": _measure(run.test),
        "exit_costs": exit_costs,
        "exit_quality": exit_quality,
        "reference": reference,
        "budget": budget,
        "budgets": run.budgets,
        "grid": grid,
        "floor": bound(m.random_curve),
        "oracle": bound(m.oracle_curve),
        "curves": {label: _curve(own, pairs) for label, own in decided.items()},
        "policies": policies,
        "class_order": order,
        "reliability": reliability(run.test),
        "importance": importance(run.policies, run.test, budget * run.val.mean_costs[-1].item()),
        "control": control_track(run.policies[reference], run.test, budget),
        "asked": budgets_by_loss(run.policies[reference], run.test, run.cal),
        "own_cal": run.cal is not None,
        "promise_delta": DELTA,
        "promises": promises(run.policies[reference], run.test, run.cal, run.budgets),
        "decided": {label: own[0].exits for label, own in decided.items()},
    }


def _measure(outputs: ExitOutputs) -> str:
    if outputs.confusion is not None:
        return "mean IoU per image"
    return outputs.measure


def nearest(budgets: list[float], budget: float) -> int:
    """Position of the budget closest to one."""
    return min(range(len(budgets)), key=lambda i: abs(budgets[i] - budget))


def _curve(decided: list[Decided], pairs: list[tuple[Tensor, Tensor]]) -> dict[str, Any]:
    """A policy's curve as the mean of its runs, by the costs and quality of each."""
    runs = list(zip(decided, pairs, strict=True))
    spent = torch.stack([at_exits(costs, own.exits).mean(1) for own, (costs, _) in runs])
    reached = [at_exits(quality, own.exits) for own, (_, quality) in runs]
    each = torch.stack([samples.mean(1) for samples in reached])
    mean, count = each.mean(0), len(each)
    if count == 1:
        _, low, high = m.paired_difference(reached[0], torch.zeros_like(reached[0]))
    else:
        reach = float(student.ppf(0.975, count - 1)) * each.std(0) / count**0.5
        low, high = mean - reach, mean + reach
    curve = {"budget": decided[0].budgets, "cost": spent.mean(0), "quality": mean}
    return curve | {"low": low.clamp_min(0), "high": high.clamp_max(1)}


def _details(
    decided: Decided, evidence: Evidence, costs: Tensor, quality: Tensor
) -> dict[str, Any]:
    """Statistics at each of M budgets.

    Scores of different policies share no unit, so they are shown by their rank among all of the
    policy's scores at exits where one can leave early, from 0 to 1: no order is lost.
    """
    found = []
    scores_behind = scores_of(decided.rules, evidence)
    for rule, scores, exits in zip(decided.rules, scores_behind, decided.exits, strict=True):
        early = scores[:-1].contiguous()
        everything = early.flatten().sort().values
        count = max(len(everything), 1)
        ranks = torch.searchsorted(everything, early).double() / count
        cut = torch.searchsorted(everything, rule.thresholds[:-1].contiguous()).double() / count
        # Who reaches the exit at this budget.
        there = (exits >= torch.arange(len(early))[:, None]).double()
        good = quality[:-1] * there
        found.append((cut, bars(ranks, good, BINS), bars(ranks, there - good, BINS)))
    stacked = map(torch.stack, zip(*found, strict=True))
    details = dict(zip(("thresholds", "right", "wrong"), stacked, strict=True))
    curve = m.curve_from_sums(m.exit_sums(decided.exits, costs, quality))
    details |= {"shares": curve.shares, "exit_quality": curve.exit_quality}
    return {"budget": decided.budgets, **details}


def _class_weights(outputs: ExitOutputs) -> Tensor | None:
    """`[N, C]`: 1 for a sample's class; for segmentation its labelled pixels of each class."""
    if outputs.confusion is not None:
        return outputs.confusion[0].double().sum(-1)
    if outputs.labels is None:
        return None
    return torch.nn.functional.one_hot(outputs.labels, outputs.num_classes).double()


def _class_shares(exits: Tensor, weights: Tensor, count: int) -> Tensor:
    """Share of each class that left at each exit, `[M, C, E]`; NaN for a class without samples."""
    left = [(exits == k).double() @ weights for k in range(count)]
    return torch.stack(left, -1) / weights.sum(0)[:, None]


def _ordered_classes(shares: Tensor) -> Tensor:
    """Classes from early to late by their mean exit, `[c]`, the middle left out if many."""
    mean = (shares * torch.arange(shares.shape[-1])).sum(-1)
    order = mean.argsort(stable=True)
    order = order[mean[order].isfinite()]
    half = _CLASSES // 2
    return order if len(order) <= _CLASSES else torch.cat([order[:half], order[-half:]])
