"""What online control and guarantees do on the test samples of a run."""

from contextlib import suppress
from typing import Any

import torch

from eenet.metrics.asking import Asked, Losses
from eenet.outputs import ExitOutputs
from eenet.policies import BudgetControl, Policy, within_budget
from eenet.policies.base import score_exits
from eenet.policies.thresholds import at_exits, first_exit

_BATCHES = 2000
_POINTS = 240
_RULES = 24
_LOSSES = (0.002, 0.005, 0.01, 0.02, 0.05)
DELTA = 0.05
"""Probability with which a promise may be broken."""


def control_track(policy: Policy, outputs: ExitOutputs, budget: float) -> dict[str, Any] | None:
    """Running mean cost over the test stream, in its order, with and without `BudgetControl`.

    Args:
        policy: One with nested rules, which the control needs; None comes out for any other.
        outputs: The stream.
        budget: Fraction of the full network's cost.

    Returns:
        "seen" samples, mean cost "controlled" and "fixed" so far and the control's "bound" on the
        distance to the "budget", at up to 240 places of the stream. Costs are the exits' means, as
        the control counts them.
    """
    if not policy.nested:
        return None
    full, costs = float(outputs.mean_costs[-1]), outputs.mean_costs
    control = BudgetControl(budget * full, costs)
    scores = score_exits(policy, outputs.evidence())
    size = -(-outputs.num_samples // _BATCHES)
    track = []
    for part in torch.split(scores, size, 1):
        control.update(costs[first_exit(part, policy.at_point(control.u).thresholds)])
        spent = control.budget - control.saved / control.samples
        track.append([control.samples, spent / full, control.bound() / full])
    places = torch.unique(torch.linspace(0, len(track) - 1, _POINTS).long())
    seen, controlled, bound = torch.tensor(track, dtype=torch.float64)[places].unbind(1)
    fixed = costs[first_exit(scores, policy.at_fraction(budget).thresholds)].cumsum(0)
    return {
        "policy": policy.label,
        "budget": budget,
        "step": control.step,
        "batch": size,
        "seen": seen.long(),
        "controlled": controlled,
        "fixed": fixed[seen.long() - 1] / seen / full,
        "bound": bound.tolist(),
    }


def budgets_by_loss(
    policy: Policy, test: ExitOutputs, cal: ExitOutputs | None
) -> list[tuple[float, Asked, Asked | None]]:
    """For each of a few losses the least budget: estimated on test, and guaranteed on `cal`.

    A loss that no budget is known to keep is left out; None stands where nothing is guaranteed.
    """
    tested = Losses(policy, test)
    calibrated = None if cal is None else Losses(policy, cal)
    found = []
    for limit in _LOSSES:
        with suppress(ValueError):
            estimate, kept = tested.at_most(limit), None
            if calibrated is not None:
                with suppress(ValueError):
                    kept = calibrated.at_most(limit, DELTA)
            found.append((limit, estimate, kept))
    return found


def promises(
    policy: Policy, test: ExitOutputs, cal: ExitOutputs | None, budgets: list[float]
) -> dict[str, Any] | None:
    """Guaranteed working points beside plain ones, on samples that neither has seen.

    Args:
        policy: Fitted; its thresholds come from the validation samples.
        test: To report on.
        cal: Calibration samples that nothing was fitted on. Without them a random half of the test
            samples stands in, and the other half is reported on.
        budgets: Promises, fractions of the full network's cost.

    Returns:
        "budget", cost of the "plain" rule and of the "guaranteed" one, and the "margin" that the
        guarantee kept on the calibration samples, lists over the budgets that can be promised;
        "samples" to calibrate on, and whether they are "own". None if nothing can be promised.
    """
    own = cal is not None
    if cal is None:
        order = torch.randperm(test.num_samples, generator=torch.Generator().manual_seed(0))
        cal, test = (test.select(half) for half in order.tensor_split(2))
    full = float(test.mean_costs[-1])
    steps = budgets
    if policy.any_budget:
        steps = torch.linspace(policy.least_budget, max(budgets), _RULES).tolist()
    rules = [policy.at_fraction(budget) for budget in steps]
    evidence, found = test.evidence(), []
    for budget in budgets:
        try:
            kept = within_budget(rules, cal, budget * full, DELTA)
        except ValueError:  # too tight a promise for so few samples
            continue
        pair = [
            float(at_exits(test.costs, rule.decide(evidence)).double().mean()) / full
            for rule in (policy.at_fraction(budget), kept.rule)
        ]
        found.append((budget, *pair, kept.margin / full))
    if not found:
        return None
    names = ("budget", "plain", "guaranteed", "margin")
    lists = dict(zip(names, map(list, zip(*found, strict=True)), strict=True))
    return {"policy": policy.label, "samples": cal.num_samples, "own": own, "delta": DELTA, **lists}
