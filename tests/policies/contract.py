"""What tests of policies share: every policy there is, fitted, and walked exit by exit."""

import inspect
import math
from functools import partial

import torch

import eenet.policies
from eenet.models import narrow
from eenet.outputs import Evidence
from eenet.policies import BEEM, ZTW, EENet, EENetPlus, Entropy, Margin, MaxProbability, Policy

EXPORTED = [getattr(eenet.policies, name) for name in eenet.policies.__all__]
ALL = [
    kind
    for kind in EXPORTED
    if isinstance(kind, type) and issubclass(kind, Policy) and not inspect.isabstract(kind)
]
"""Every policy class that the package exports, so that a new one cannot be forgotten."""
VARIANTS = [
    partial(EENet, probs=False, start="random"),
    partial(EENet, exit_distribution="common"),
    partial(EENetPlus, soft=0.0),
    *(partial(kind, common=True) for kind in (MaxProbability, Entropy, Margin)),
    partial(BEEM, common=False),
    partial(ZTW, common=False),
]
"""Settings that change how a policy decides."""
FIXED = [kind for kind in ALL if not kind.any_budget]
"""Those that hold budgets in their loss."""


def fitted(policy, outputs, budgets=(0.3, 0.5, 0.8), epochs=(0, 10, 20), lr=0.1):
    """Fits a policy; one that holds budgets, which are fractions, by a few steps of descent."""
    if policy.any_budget:
        return policy.fit(outputs)
    torch.manual_seed(0)
    policy.prepare(outputs, [float(b * outputs.mean_costs[-1]) for b in budgets])
    evidence, quality = outputs.evidence(), outputs.answer_quality()
    optimizer = torch.optim.Adam(policy.parameters(), lr)
    for epoch in epochs:
        optimizer.zero_grad()
        policy.loss(evidence, quality, epoch).backward()
        optimizer.step()
    return policy.finish(outputs)


def leave_step_by_step(rule, outputs):
    """Exits, and least distances of scores to thresholds, each sample seen no further than it goes.

    Where a score is that near, sums in another order may decide otherwise.
    """
    exits = torch.full((outputs.num_samples,), -1)
    near = torch.full((outputs.num_samples,), math.inf)
    there, state = torch.arange(outputs.num_samples), None
    for k in range(outputs.num_exits):
        evidence = Evidence.from_logits(outputs.logits[k][there])
        scores, state = rule.scorer.step(k, evidence, state)
        gap = (scores - rule.thresholds[k]).abs() / rule.thresholds[k].abs().clamp_min(1)
        near[there] = torch.minimum(near[there], gap.float().nan_to_num(math.inf))
        leaves = (scores >= rule.thresholds[k]) | (k == outputs.num_exits - 1)
        exits[there[leaves]] = k
        there, state = there[~leaves], narrow(state, ~leaves)
    return exits, near
