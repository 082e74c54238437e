"""What the report shows, as plain numbers: exit outputs and fitted policies in, a dict out."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from scipy.stats import t as student
from torch import Tensor

from eenet import metrics as m
from eenet.report.calibration import reliability
from eenet.report.importance import importance
from eenet.report.promises import control_track, promises
from eenet.scheduling import EENetPlus, ExitOutputs, Policy, Rule
from eenet.scheduling.evidence import Evidence
from eenet.scheduling.learned import LearnedPolicy
from eenet.scheduling.policy import score_exits
from eenet.scheduling.thresholds import at_exits, first_exit

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
    scores: list[Tensor]
    """`[E, N]` behind each rule; a policy with one fit for all budgets has but one."""
    exits: Tensor
    """`[M, N]`, from 0."""


def decide(policy: Policy, run: Run, evidence: Evidence) -> Decided:
    """Rules at the run's budgets, and in between where the policy serves any, and their decisions.

    Args:
        policy: Fitted on `run.val`.
        run: The run.
        evidence: That of `run.test`, `[E, N]`.
    """
    full = float(run.val.mean_costs[-1])
    start = float(run.val.mean_costs[0]) / full
    budgets = run.budgets
    if not isinstance(policy, LearnedPolicy):
        budgets = sorted({*budgets, *torch.linspace(start, 1, _STOPS).tolist()})
    rules = [policy.at(budget * full) for budget in budgets]
    scores: dict[Any, Tensor] = {}
    for rule in rules:
        if rule.scorer not in scores:
            scores[rule.scorer] = score_exits(rule.scorer, evidence)
    behind = [scores[rule.scorer] for rule in rules]
    exits = [first_exit(s, rule.thresholds) for s, rule in zip(behind, rules, strict=True)]
    return Decided(budgets, rules, behind, torch.stack(exits))


def report_data(runs: Sequence[Run]) -> dict[str, Any]:
    """Everything that the figures and the page draw, but the examples.

    Curves, bounds and exits are means over the runs. All else is of the first run: details of
    one network.

    Args:
        runs: Of one set-up, which differ in their seeds.

    Returns:
        "curves" by policy, with 95 % intervals: Student's over the runs if there are several,
        otherwise bootstrap intervals over the test samples, simultaneous over the budgets; "floor"
        and "oracle" at the "grid" of budgets; "policies", details at each budget; "reliability" of
        each exit; "importance" of the scheduler's inputs; "control" and "promises". Costs are
        fractions of the full network's, exits count from 0.
    """
    details: list[dict[str, Any]] = []
    bounds: list[list[Tensor]] = []
    exits: list[tuple[Tensor, Tensor]] = []
    start = max(float(run.test.mean_costs[0] / run.test.mean_costs[-1]) for run in runs)
    grid = sorted({*torch.linspace(start, 1, _STOPS).tolist(), *runs[0].budgets})
    for run in runs:
        costs = (run.test.costs / run.test.mean_costs[-1]).double()
        reached = run.test.answer_quality().double()
        at = torch.tensor(grid, dtype=torch.float64)
        curves = m.random_curve(costs, reached), m.oracle_curve(costs, reached)
        exits.append((costs.reshape(len(costs), -1).mean(1), reached.mean(1)))
        bounds.append([m.quality_at(*curve, at.clamp_min(curve[0].min())) for curve in curves])
        evidence = run.test.evidence()
        decided = {label: decide(policy, run, evidence) for label, policy in run.policies.items()}
        if not details:
            first, first_reached, first_costs = decided, reached, costs
        details.append(
            {name: _curve(d, costs, reached, len(runs) == 1) for name, d in decided.items()}
        )
    run, labels = runs[0], list(runs[0].policies)
    reference = next((x for x in labels if isinstance(run.policies[x], EENetPlus)), labels[0])
    budget = run.budgets[nearest(run.budgets, 0.5)]
    weights, order = _class_weights(run.test), None
    policies = {}
    for label in [reference, *(label for label in labels if label != reference)]:
        policies[label] = _details(first[label], first_costs, first_reached)
        if weights is not None:
            left = _class_shares(first[label].exits, weights, run.test.num_exits)
            if order is None:
                order = _ordered_classes(left[nearest(first[label].budgets, budget)])
            policies[label]["classes"] = left[:, order]
    floor, oracle = (torch.stack(curve).mean(0) for curve in zip(*bounds, strict=True))
    exit_costs, exit_quality = (torch.stack(x).mean(0) for x in zip(*exits, strict=True))
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
        "floor": floor,
        "oracle": oracle,
        "curves": {label: _over_runs([d[label] for d in details]) for label in policies},
        "policies": policies,
        "class_order": order,
        "reliability": reliability(run.test),
        "importance": importance(run.policies, run.test, budget * run.val.mean_costs[-1].item()),
        "control": control_track(run.policies[reference], run.test, budget),
        "promises": promises(run.policies[reference], run.test, run.cal, run.budgets),
        "decided": {label: d.exits for label, d in first.items()},
    }


def _measure(outputs: ExitOutputs) -> str:
    if outputs.confusion is not None:
        return "mean IoU per image"
    return "accuracy" if outputs.quality is None else "quality"


def nearest(budgets: list[float], budget: float) -> int:
    """Position of the budget closest to one."""
    return min(range(len(budgets)), key=lambda i: abs(budgets[i] - budget))


def _curve(decided: Decided, costs: Tensor, quality: Tensor, bootstrap: bool) -> dict[str, Any]:
    samples = at_exits(quality, decided.exits)
    curve = {
        "budget": torch.tensor(decided.budgets, dtype=torch.float64),
        "cost": at_exits(costs, decided.exits).mean(1),
        "quality": samples.mean(1),
    }
    if bootstrap:
        interval = m.paired_difference(samples, torch.zeros_like(samples))
        curve |= {"low": interval.low.clamp_min(0), "high": interval.high.clamp_max(1)}
    return curve


def _over_runs(curves: list[dict[str, Any]]) -> dict[str, Any]:
    """The mean of several runs' curves, with Student's intervals."""
    if len(curves) == 1:
        return curves[0]
    stacked = {name: torch.stack([curve[name] for curve in curves]) for name in curves[0]}
    quality, count = stacked["quality"], len(curves)
    reach = float(student.ppf(0.975, count - 1)) * quality.std(0) / count**0.5
    mean = {name: values.mean(0) for name, values in stacked.items()}
    low, high = mean["quality"] - reach, mean["quality"] + reach
    return mean | {"low": low.clamp_min(0), "high": high.clamp_max(1)}


def _details(decided: Decided, costs: Tensor, quality: Tensor) -> dict[str, Any]:
    """Statistics at each of M budgets.

    Scores of different policies share no unit, so they are shown by their rank among all of the
    policy's scores at exits where one can leave early, from 0 to 1: no order is lost.
    """
    curve = m.curve_from_sums(m.exit_sums(decided.exits, costs, quality))
    thresholds, right, wrong = [], [], []
    for rule, scores, exits in zip(decided.rules, decided.scores, decided.exits, strict=True):
        early = scores[:-1].contiguous()
        everything = early.flatten().sort().values
        count = max(len(everything), 1)
        ranks = torch.searchsorted(everything, early).double() / count
        bins = (ranks * BINS).long().clamp_max(BINS - 1)
        cut = torch.searchsorted(everything, rule.thresholds[:-1].contiguous()).double() / count
        # Who reaches the exit at this budget.
        there = (exits >= torch.arange(len(early))[:, None]).double()
        good = quality[:-1] * there
        empty = torch.zeros(len(early), BINS, dtype=torch.float64)
        right.append(empty.scatter_add(1, bins, good))
        wrong.append(empty.scatter_add(1, bins, there - good))
        thresholds.append(cut)
    return {
        "budget": decided.budgets,
        "expected": [rule.cost for rule in decided.rules],
        "cost": curve.cost,
        "quality": curve.quality,
        "shares": curve.shares,
        "exit_quality": curve.exit_quality,
        "thresholds": torch.stack(thresholds),
        "right": torch.stack(right),
        "wrong": torch.stack(wrong),
    }


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
