"""Fitting policies on many networks' outputs with many seeds, in processes side by side."""

import copy
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from multiprocessing import get_context
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from eenet.outputs import ExitOutputs, load_outputs, with_cost_matrix
from eenet.policies import HeuristicPolicy, Policy
from eenet.policies.base import decide_all


class Source(NamedTuple):
    """Exit outputs of one network: what to fit and to report on, and what is optimized."""

    val: str
    test: str | None
    cost_matrix: list[list[float]] | None = None

    def load(self) -> tuple[ExitOutputs, ExitOutputs]:
        """Outputs to fit on and to report on: without `test` the same, see `parts`."""
        fit = with_cost_matrix(load_outputs(self.val), self.cost_matrix)
        if self.test is None:
            return fit, fit
        return fit, with_cost_matrix(load_outputs(self.test), self.cost_matrix)

    def parts(self) -> Iterator[tuple[ExitOutputs, ExitOutputs, Tensor]]:
        """Outputs to fit on, to decide for, and the positions of the latter among all.

        Without `test` there are two: each half of `val` is decided for by what was fitted on the
        other.
        """
        fit, test = self.load()
        if self.test is not None:
            yield fit, test, torch.arange(test.num_samples)
            return
        first, second = halves(fit.num_samples)
        for chosen, others in ((first, second), (second, first)):
            yield fit.select(chosen), fit.select(others), others


def halves(samples: int) -> tuple[Tensor, ...]:
    """Positions of two random halves of the samples, the same in every call."""
    return torch.randperm(samples, generator=torch.Generator().manual_seed(0)).chunk(2)


class Plan(NamedTuple):
    """The checked settings of a comparison."""

    sources: Sequence[Source]
    tests: list[ExitOutputs]
    networks: list[tuple[Tensor, Tensor]]
    """Costs `[E(, N)]`, as fractions, and quality `[E, N]` of each."""
    policies: dict[str, Policy]
    reference: str
    start: float
    """The first exit's cost."""
    budgets: list[float]
    seeds: int


def is_heuristic(policy: Policy) -> bool:
    """Whether a policy neither learns where to leave nor draws random numbers."""
    return isinstance(policy, HeuristicPolicy) and not hasattr(policy, "seed")


def fit_and_decide(
    source: Source, budgets: list[float], policies: Sequence[Policy], seed: int
) -> Any:
    """Fits copies of policies on a network's outputs and decides for its test samples.

    Args:
        source: The outputs.
        budgets: Fractions of the full network's cost.
        policies: With labels of their own. A policy's own `seed` is moved by `seed`.
        seed: Seed of what is learned.

    Returns:
        Exits `[P, M + 2, N]` as uint8 numpy, small enough to send between processes. Around the
        budgets stand those that the first and the last exit cost.
    """
    from eenet.modules.fit import fit_policies  # Lightning, which the parent does not need

    torch.set_num_threads(1)
    decided, places = [], []
    for fit, test, place in source.parts():
        costs = fit.mean_costs.double()
        asked = [float(costs[0]), *(float(b * costs[-1]) for b in budgets), float(costs[-1])]
        fitted: list[Any] = [copy.deepcopy(policy) for policy in policies]
        for policy in fitted:
            if hasattr(policy, "seed"):
                policy.seed += seed
        fit_policies(fitted, fit, asked, seed, epochs=100, budget_unit="cost")
        rules = [policy.at(budget) for policy in fitted for budget in asked]
        exits = test.map(partial(decide_all, rules))
        decided.append(exits.view(len(fitted), len(asked), -1))
        places.append(place)
    order = torch.cat(places).argsort()
    return torch.cat(decided, -1)[..., order].byte().numpy()


def fit_all(plan: Plan, jobs: int) -> dict[str, list[Tensor]]:
    """Exits `[M + 2, N]` of each seed and network, in that order, by policy.

    What no seed changes is fitted once for each network.
    """
    seeded = [p for p in plan.policies.values() if not is_heuristic(p)]
    tasks = [
        (source, plan.budgets, seeded if seed else list(plan.policies.values()), seed)
        for seed, source in product(range(plan.seeds), plan.sources)
    ]
    runs: dict[str, list[Tensor]] = {label: [] for label in plan.policies}
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        results = (map if jobs == 1 else pool.map)(fit_and_decide, *zip(*tasks, strict=True))
        progress = track(results, "comparing", len(tasks), console=Console(stderr=True))
        for (_, _, policies, _), decided in zip(tasks, progress, strict=False):
            for policy, exits in zip(policies, decided, strict=True):
                runs[policy.label].append(torch.from_numpy(exits).long())
    return runs
