"""Policies at many budgets, seeds and networks at equal cost, from exit outputs."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from eenet.comparison.fitting import Plan, Source, fit_all
from eenet.comparison.summary import Comparison, summarize
from eenet.metrics.curve_maths import relative
from eenet.policies import Policy, Random, Temperature
from eenet.run_folder import build

DEFAULT_POLICIES: list[dict[str, Any]] = yaml.safe_load(
    Path(__file__).with_name("policies.yaml").read_text(encoding="utf-8")
)
"""What is compared by default, by `class_path`."""


def compare(
    sources: Sequence[Source],
    budgets: int | list[float] = 16,
    seeds: int = 5,
    policies: list[Policy] | None = None,
    reference: str = "eenet+",
    jobs: int = 1,
) -> Comparison:
    """Fits and evaluates policies on each network's outputs, and compares them at equal cost.

    Args:
        sources: One for each network; they share their test samples and number of exits.
        budgets: Fractions of the full network's cost, or how many of them, evenly spaced from 1.1
            times the first exit's cost to 0.95.
        seeds: Number of seeds of the policies that learn or draw random numbers.
        policies: The policies, each by `class_path` and `init_args`; they are copied, not fitted
            in place. Random exits and the reference are added. By default those that eenet brings,
            except temperature where there are no labelled logits.
        reference: Label of the policy that the others are subtracted from.
        jobs: Number of processes, of one thread each.

    Raises:
        ValueError: If there is no such reference, a budget is out of range, or the networks do not
            share their test samples.
    """
    plan = _check(sources, budgets, seeds, policies, reference)
    return summarize(plan, fit_all(plan, jobs))


def default_policies() -> list[Policy]:
    """The policies compared by default, new and not fitted."""
    policies: list[Policy] = build(list[Policy], DEFAULT_POLICIES)
    return policies


def _check(
    sources: Sequence[Source],
    budgets: int | list[float],
    seeds: int,
    policies: list[Policy] | None,
    reference: str,
) -> Plan:
    loaded = [source.load() for source in sources]
    labelled = all(fit.logits is not None and fit.labels is not None for fit, _ in loaded)
    named = {policy.label: policy for policy in default_policies()}
    if policies is None:  # temperatures are fitted on labelled logits
        policies = [p for p in named.values() if labelled or not isinstance(p, Temperature)]
    chosen = _by_label(policies)
    if reference not in {**named, **chosen}:
        raise ValueError(f"reference={reference!r}: choose from {', '.join(chosen)}")
    order = [reference, *chosen, Random.label]
    chosen = {label: chosen.get(label) or named[label] for label in order}

    tests = [test for _, test in loaded]
    labels = [None if test.labels is None else test.labels.tolist() for test in tests]
    if any(x != labels[0] for x in labels) or len({test.num_exits for test in tests}) > 1:
        raise ValueError("runs: give networks that share their test samples and number of exits")
    start = max(float(o.mean_costs[0] / o.mean_costs[-1]) for pair in loaded for o in pair)
    if isinstance(budgets, int):
        budgets = torch.linspace(1.1 * start, 0.95, budgets).tolist()
    ends = [start, *budgets, 1.0]
    if ends != sorted(set(ends)) or len(budgets) < 2:
        raise ValueError(
            f"budgets={budgets} must be two or more that rise between {start:.3f}, the first "
            "exit, and 1"
        )
    networks = [relative(test) for test in tests]
    return Plan(sources, tests, networks, chosen, reference, start, budgets, seeds)


def _by_label(policies: Sequence[Policy]) -> dict[str, Policy]:
    """Copies by their labels; what has the same as one before is numbered."""
    named: dict[str, Policy] = {}
    for policy in map(copy.deepcopy, policies):
        label, number = policy.label, 1
        while policy.label in named:
            number += 1
            policy.label = f"{label} ({number})"
        named[policy.label] = policy
    return named
