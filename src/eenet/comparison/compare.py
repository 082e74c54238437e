"""`eenet compare`: every policy at many budgets, seeds and networks, from exit outputs alone."""

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import cycle, product
from multiprocessing import get_context
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from eenet import metrics as m
from eenet import policies as s
from eenet.metrics.curve_maths import exit_means, mean_at, relative
from eenet.modules.fit import fit_policies
from eenet.outputs import ExitOutputs, load_outputs, with_cost_matrix
from eenet.plotting.tables import Row, rows_of
from eenet.policies.base import decide_all
from eenet.policies.thresholds import at_exits

HEURISTICS = (s.MaxProbability, s.Margin, s.Entropy, s.Temperature, s.Vote, s.Patience)
"""What leaves without learning where to; no seed changes them."""
POLICIES: dict[str, tuple[Any, dict[str, Any]]] = {
    **{kind.label: (kind, {}) for kind in (s.EENetPlus, s.EENet, s.LearnedStopping)},
    **{kind.label: (kind, {}) for kind in (s.JointGates, *HEURISTICS, s.Random)},
    "eenet no weights": (s.EENet, {"weight_scores": False}),
    "eenet no vote": (s.EENet, {"vote": False}),
    "eenet no past": (s.EENet, {"past_scores": False}),
    "eenet geometric": (s.EENet, {"exit_distribution": "geometric"}),
}
"""By label: class and settings. Ablations, with settings, are compared on demand."""
TOLERANCE = 0.002
"""Quality below the full network's that counts as full."""


class Source(NamedTuple):
    """Exit outputs of one network: what to fit and to report on, and what is optimised."""

    val: str
    test: str | None
    cost_matrix: list[list[float]] | None

    def load(self) -> tuple[ExitOutputs, ExitOutputs]:
        """Outputs to fit on and to report on: without `test` the halves of `val`."""
        fit = with_cost_matrix(load_outputs(self.val), self.cost_matrix)
        if self.test is not None:
            return fit, with_cost_matrix(load_outputs(self.test), self.cost_matrix)
        order = torch.randperm(fit.num_samples, generator=torch.Generator().manual_seed(0))
        first, second = order.chunk(2)
        return fit.select(first), fit.select(second)


def decide(source: Source, budgets: list[float], labels: list[str], seed: int) -> Any:
    """Fits policies on a network's outputs and decides for its test samples.

    Returns:
        Exits `[P, M + 2, N]` as uint8 numpy, small enough to send between processes. Around the
        budgets, which are fractions, stand those that the first and the last exit cost.
    """
    torch.set_num_threads(1)
    fit, test = source.load()
    costs = fit.mean_costs.double()
    given = [float(costs[0]), *(float(b * costs[-1]) for b in budgets), float(costs[-1])]
    policies = []
    for label in labels:
        kind, settings = POLICIES[label]
        seeded = {"seed": seed} if kind in (s.EENetPlus, s.Random) else {}
        policies.append(kind(**settings, **seeded))
        policies[-1].label = label
    fit_policies(policies, fit, given, seed, epochs=100, budget_unit="cost")
    rules = [policy.at(budget) for policy in policies for budget in given]
    exits = test.map(lambda evidence: decide_all(rules, evidence))
    return exits.view(len(policies), len(given), -1).byte().numpy()


def compare(
    sources: Sequence[Source],
    budgets: int | list[float] = 16,
    seeds: int = 5,
    policies: list[str] | None = None,
    reference: str = "eenet+",
    jobs: int = 1,
) -> dict[str, Any]:
    """Fits and evaluates policies on each network's outputs, and compares them at equal cost.

    Args:
        sources: One for each network; they share their test samples and number of exits.
        budgets: Fractions of the full network's cost, or how many of them, evenly spaced from 1.1
            times the first exit's cost to 0.95.
        seeds: Number of seeds of the policies that have any chance in them.
        policies: Labels out of `POLICIES`; by default all but the ablations, and but temperature
            where there are no labelled logits.
        reference: The policy that the others are subtracted from.
        jobs: Number of processes, of one thread each.

    Returns:
        "policies" (a row for each), "rows" (one for each at each budget), "bounds" (curves), and
        what the table and the figure need besides. Costs are fractions of the full network's.

    Raises:
        ValueError: If a policy is unknown or the networks do not share their test samples.
    """
    loaded = [source.load() for source in sources]
    default = [label for label, (_, settings) in POLICIES.items() if not settings]
    if any(fit.logits is None or fit.labels is None for fit, _ in loaded):
        default.remove(s.Temperature.label)  # fitted on labelled logits
    labels = list(dict.fromkeys([reference, *(policies or default), "random"]))
    if unknown := sorted(set(labels) - set(POLICIES)):
        raise ValueError(f"policies: no {unknown}; there are {', '.join(POLICIES)}")
    known = [label for label in labels if POLICIES[label][0] in HEURISTICS]
    by_chance = [label for label in labels if label not in known]
    tests = [test for _, test in loaded]
    samples = [None if test.labels is None else test.labels.tolist() for test in tests]
    if any(x != samples[0] for x in samples) or len({test.num_exits for test in tests}) > 1:
        raise ValueError("runs: give networks that share their test samples and number of exits")
    start = max(float(o.mean_costs[0] / o.mean_costs[-1]) for pair in loaded for o in pair)
    if isinstance(budgets, int):
        budgets = torch.linspace(1.1 * start, 0.95, budgets).tolist()
    ends = [start, *budgets, 1.0]
    if ends != sorted(set(ends)):
        raise ValueError(f"budgets={budgets} must rise between {start:.3f}, the first exit, and 1")
    networks = [relative(test) for test in tests]
    fits = product(range(seeds), sources)
    tasks = [(source, budgets, by_chance if seed else labels, seed) for seed, source in fits]
    runs: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {label: [] for label in labels}
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        results = (map if jobs == 1 else pool.map)(decide, *zip(*tasks, strict=True))
        shown = track(results, "comparing", len(tasks), console=Console(stderr=True))
        for (_, _, fitted, _), network, decided in zip(tasks, cycle(networks), shown, strict=False):
            for label, exits in zip(fitted, decided, strict=True):
                runs[label].append((*network, torch.from_numpy(exits).long()))

    at, grid = torch.tensor(budgets), torch.linspace(start, 1, 401, dtype=torch.float64)
    exit_costs, exit_quality = (x.tolist() for x in exit_means(networks))
    enough = torch.tensor([exit_quality[-1] - TOLERANCE])
    measured = {label: _measure(own, at, grid) for label, own in runs.items()}
    best = max(known, key=lambda label: float(measured[label]["areas"].mean()), default="random")
    floor, heuristic = (measured[x]["areas"].mean() for x in ("random", best))
    rows: list[Row] = []
    summary: list[Row] = []
    for label, own in measured.items():
        lead = m.paired_difference(measured[reference]["samples"], own["samples"])
        columns = {
            "budget": at,
            "quality": own["quality"].mean(0),
            "quality_sd": _deviation(own["quality"]),
            "used": own["used"].mean(0),
            "lead": lead.mean,
            "lead_low": lead.low,
            "lead_high": lead.high,
        }
        rows += rows_of(label, columns)
        numbers = {
            "area": own["areas"].mean(),
            "area_sd": _deviation(own["areas"]),
            "share_closed": m.share_closed(own["areas"].mean(), floor, heuristic),
            "cost_of_full": m.budget_at(grid, own["curve"], enough),
            "ahead": (lead.low > 0).sum(),
            "behind": (lead.high < 0).sum(),
        }
        plain = {name: x.item() if x.isfinite() else None for name, x in numbers.items()}
        summary.append({"policy": label} | plain)

    lower, upper = zip(*(m.stopping_curves(test) for test in tests), strict=True)
    bounds = {
        "oracle": [m.oracle_curve(*network) for network in networks],
        "mixture": [m.mixture_curve(*network) for network in networks],
        "stopping_low": lower,
        "stopping_high": upper,
    }
    means = {name: mean_at(curves, grid).tolist() for name, curves in bounds.items()}
    return {
        "samples": tests[0].num_samples,
        "networks": len(tests),
        "full_quality": exit_quality[-1],
        "reference": reference,
        "best_heuristic": best,
        "heuristics": known,
        "policies": sorted(summary, key=lambda row: -row["area"]),
        "rows": rows,
        "bounds": {"cost": grid.tolist(), **means},
        "exit_costs": exit_costs,
        "exit_quality": exit_quality,
    }


def _measure(
    runs: list[tuple[Tensor, Tensor, Tensor]], at: Tensor, grid: Tensor
) -> dict[str, Tensor]:
    """What runs, given by costs, quality and exits, reach.

    Returns:
        For R runs, B equal costs and N samples "areas" `[R]`, "quality" and cost "used" where the
        budget was asked for `[R, B]`; "samples" `[B, N]` and "curve" on the grid, both means.
    """
    used = [at_exits(costs, exits).mean(1) for costs, _, exits in runs]
    reached = [at_exits(quality, exits) for _, quality, exits in runs]
    equal = torch.stack([m.quality_at(*pair, at) for pair in zip(used, reached, strict=True)])
    curves = [(cost, samples.mean(1)) for cost, samples in zip(used, reached, strict=True)]
    return {
        "areas": torch.tensor([m.area(*curve, float(at[0]), float(at[-1])) for curve in curves]),
        "quality": equal.mean(2),
        "used": torch.stack(used)[:, 1:-1],
        "samples": equal.mean(0),
        "curve": mean_at(curves, grid),
    }


def _deviation(runs: Tensor) -> Tensor:
    return runs.std(0, correction=min(1, len(runs) - 1))
