"""What the learned schedulers look at: weights of EENet, regressions of EENet+."""

import math
from typing import Any

import torch

from eenet.outputs import ExitOutputs
from eenet.policies import EENet, EENetPlus, Policy
from eenet.policies.eenet_plus_inputs import exit_inputs, input_groups

_NAMED = 20
"""With more classes than this, their weights are summed up."""


def importance(
    policies: dict[str, Policy], outputs: ExitOutputs, budget: float
) -> dict[str, dict[str, Any]]:
    """Importance of each input at each exit, of those policies that learn weights.

    Args:
        policies: Fitted.
        outputs: Samples over which inputs vary.
        budget: In the unit of the costs.

    Returns:
        By label, "values" by name of the input, or number of the class whose probability it is, one
        for each exit (NaN where the exit has no such input), and a "note". Of EENet the score
        weight times the standard deviation of the input, by class if there are few. Of EENet+ the
        standard deviation of what a group of inputs adds to the predicted gain of going on (per
        unit of doubt, before it is multiplied by that) at the price paid at the budget. Inputs of a
        group are correlated and their coefficients cancel, so single ones would mislead.
    """
    found = {}
    for label, policy in policies.items():
        if isinstance(policy, EENet):
            found[label] = _eenet(policy, outputs, budget)
        elif isinstance(policy, EENetPlus) and policy.weight.numel():
            found[label] = _eenet_plus(policy, outputs, budget)
    return found


@torch.no_grad()
def _eenet(policy: EENet, outputs: ExitOutputs, budget: float) -> dict[str, Any]:
    distance = (policy.budgets - budget).abs()
    m, classes, exits = int(distance.argmin()), outputs.num_classes, outputs.num_exits
    names: list[str | int] = list(range(classes)) if classes <= _NAMED else ["p of all classes"]
    names += ["max p", "1 - entropy", *(["vote"] if policy.vote else [])]
    names += [f"score at exit {k + 1}" for k in range(exits)]
    values: dict[str | int, list[float]] = {}
    evidence, state, member = outputs.evidence(), None, policy.member(m)
    for k in range(exits):
        (_, x), state = member.exit_scores(k, evidence.at(k), state)
        unit: Any = policy.score[k]
        weights = unit.weight[m, :, 0]
        shown = (weights * x[0].std(0)).tolist()
        if classes > _NAMED:  # of the whole group, as it may be large though each weight is small
            shown[:classes] = [float((x[0, :, :classes] @ weights[:classes]).std())]
        for name, value in zip(names, shown, strict=False):  # no later exit's score
            values.setdefault(name, [math.nan] * exits)[k] = value
    fitted = float(policy.budgets[m] / policy.costs[-1])
    return {"values": values, "note": f"its fit for budget {fitted:.2f}"}


def _eenet_plus(policy: EENetPlus, outputs: ExitOutputs, budget: float) -> dict[str, Any]:
    threshold = float(policy.at(budget).thresholds[0])
    prices = policy.prices
    price = int((prices + threshold).abs().argmin()) if math.isfinite(threshold) else 0
    evidence, state, groups = outputs.evidence(), None, input_groups(outputs.num_classes)
    values: dict[str, list[float]] = {}
    for k in range(outputs.num_exits - 1):
        inputs, state = exit_inputs(k, evidence.at(k), state)
        weight = policy.weight[k][:, price]
        parts = (torch.split(x, list(groups.values()), -1) for x in (inputs, weight))
        for name, own, weights in zip(groups, *parts, strict=True):
            values.setdefault(name, []).append(float((own @ weights).std()))
    note = f"at a price of {float(prices[price]):.2g} per full cost"
    if threshold >= float(policy.switch):
        note += ", where a heuristic already decides"
    return {"values": values, "note": note}
