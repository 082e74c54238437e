"""What a comparison finds: each policy's area, its curve at equal cost, and the bounds around."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from eenet import metrics
from eenet.comparison.fitting import Plan, is_heuristic
from eenet.metrics.curve_maths import exit_means, mean_at
from eenet.plotting.rows import Row, rows_of
from eenet.policies import Random
from eenet.policies.thresholds import at_exits

TOLERANCE = 0.002
"""Quality below the full network's that counts as full."""
_GRID = 401
"""Points of the curves that are drawn."""


@dataclass(frozen=True)
class PolicySummary:
    """A policy over all budgets, seeds and networks. A number that does not exist is None."""

    policy: str
    area: float
    """Mean quality over the budgets."""
    area_sd: float
    """Its standard deviation over seeds and networks."""
    share_closed: float | None
    """0 for random exits, 1 for the best heuristic."""
    cost_of_full: float | None
    """Cost at which the full network's quality, less `TOLERANCE`, is reached."""
    ahead: int
    """At how many budgets the reference is better, the interval above zero."""
    behind: int
    """At how many it is worse."""


@dataclass(frozen=True)
class Comparison:
    """Result of `compare`. Costs are fractions of the full network's.

    Args:
        samples: Number of test samples.
        networks: Number of networks.
        full_quality: Quality of the full network.
        reference: The policy that the others are subtracted from.
        best_heuristic: The policy with the largest area of those that learn nothing.
        heuristics: All of those.
        policies: A summary of each policy, the largest area first.
        rows: One for each policy at each budget: "policy", "budget", "quality" with its deviation
            "quality_sd", the cost "used", and the reference's "lead" with its interval from
            "lead_low" to "lead_high", simultaneous over the budgets.
        bounds: Curves by name, at the costs "cost".
        exit_costs: Cost of each exit.
        exit_quality: Its quality.
    """

    samples: int
    networks: int
    full_quality: float
    reference: str
    best_heuristic: str
    heuristics: list[str]
    policies: list[PolicySummary]
    rows: list[Row]
    bounds: dict[str, list[float]]
    exit_costs: list[float]
    exit_quality: list[float]


def summarize(plan: Plan, runs: dict[str, list[Tensor]]) -> Comparison:
    """Compares what was decided: the exits `[M + 2, N]` of each run, by policy."""
    grid = torch.linspace(plan.start, 1, _GRID, dtype=torch.float64)
    exit_costs, exit_quality = (x.tolist() for x in exit_means(plan.networks))
    enough = torch.tensor([exit_quality[-1] - TOLERANCE])
    measured = {label: _measure(plan, decided, grid) for label, decided in runs.items()}
    heuristics = [label for label, policy in plan.policies.items() if is_heuristic(policy)]
    areas = {label: found.areas.mean() for label, found in measured.items()}
    best = max(heuristics, key=lambda label: float(areas[label]), default=Random.label)
    rows: list[Row] = []
    summaries: list[PolicySummary] = []
    for label, found in measured.items():
        lead = metrics.paired_difference(measured[plan.reference].samples, found.samples)
        columns = {
            "budget": torch.tensor(plan.budgets),
            "quality": found.quality.mean(0),
            "quality_sd": _deviation(found.quality),
            "used": found.used.mean(0),
            "lead": lead.mean,
            "lead_low": lead.low,
            "lead_high": lead.high,
        }
        rows += rows_of(label, columns)
        summary = PolicySummary(
            policy=label,
            area=float(areas[label]),
            area_sd=float(_deviation(found.areas)),
            share_closed=_number(
                metrics.share_closed(areas[label], areas[Random.label], areas[best])
            ),
            cost_of_full=_number(metrics.budget_at(grid, found.curve, enough)),
            ahead=int((lead.low > 0).sum()),
            behind=int((lead.high < 0).sum()),
        )
        summaries.append(summary)
    return Comparison(
        samples=plan.tests[0].num_samples,
        networks=len(plan.tests),
        full_quality=exit_quality[-1],
        reference=plan.reference,
        best_heuristic=best,
        heuristics=heuristics,
        policies=sorted(summaries, key=lambda summary: -summary.area),
        rows=rows,
        bounds=_bounds(plan, grid),
        exit_costs=exit_costs,
        exit_quality=exit_quality,
    )


class _Measured(NamedTuple):
    """Quality of R runs of a policy at B equal costs, on N samples."""

    areas: Tensor
    """`[R]`."""
    quality: Tensor
    """`[R, B]`."""
    used: Tensor
    """`[R, B]`, the costs where the budgets were asked for."""
    samples: Tensor
    """`[B, N]`, the mean over the runs."""
    curve: Tensor
    """`[G]`, the mean over the runs at the costs of the grid."""


def _measure(plan: Plan, decided: list[Tensor], grid: Tensor) -> _Measured:
    at = torch.tensor(plan.budgets)
    networks = plan.networks * (len(decided) // len(plan.networks))
    runs = list(zip(networks, decided, strict=True))
    used = [at_exits(costs, exits).mean(1) for (costs, _), exits in runs]
    reached = [at_exits(quality, exits) for (_, quality), exits in runs]
    equal = torch.stack([metrics.quality_at(*pair, at) for pair in zip(used, reached, strict=True)])
    curves = [(cost, samples.mean(1)) for cost, samples in zip(used, reached, strict=True)]
    return _Measured(
        areas=torch.tensor([metrics.area(*curve, float(at[0]), float(at[-1])) for curve in curves]),
        quality=equal.mean(2),
        used=torch.stack(used)[:, 1:-1],
        samples=equal.mean(0),
        curve=mean_at(curves, grid),
    )


def _bounds(plan: Plan, grid: Tensor) -> dict[str, list[float]]:
    lower, upper = zip(*(metrics.stopping_curves(test) for test in plan.tests), strict=True)
    curves = {
        "oracle": [metrics.oracle_curve(*network) for network in plan.networks],
        "mixture": [metrics.mixture_curve(*network) for network in plan.networks],
        "stopping_low": lower,
        "stopping_high": upper,
    }
    means = {name: mean_at(parts, grid).tolist() for name, parts in curves.items()}
    return {"cost": grid.tolist(), **means}


def _number(value: Tensor) -> float | None:
    return float(value) if value.isfinite() else None


def _deviation(runs: Tensor) -> Tensor:
    return runs.std(0, correction=min(1, len(runs) - 1))
