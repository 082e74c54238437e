"""Which of a network's exits to keep: the quality of each set of them, from exit outputs."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import NamedTuple

from eenet.comparison.fitting import halves
from eenet.outputs import ExitOutputs
from eenet.outputs.exit_outputs import FIELDS
from eenet.policies import MaxProbability
from eenet.policies.base import reached_by


class Placement(NamedTuple):
    """A set of exits and what it reaches."""

    exits: list[int]
    """Counted from 1; the last is always among them."""
    chosen_by: float
    """Mean quality over the budgets on the outputs to choose by, each half fitted on the other."""
    quality: list[float]
    """Mean quality at each budget on the outputs to report on."""


def place_exits(val: ExitOutputs, test: ExitOutputs, budgets: Sequence[float]) -> list[Placement]:
    """The best sets of exits, from all of them down to two, one exit left out at a time.

    Each is judged by the mean quality of max probability with one threshold for all exits, which
    is fitted in no time; what is left out is what costs the least of it. The costs are those
    measured with all heads: without the heads that are left out they would be a little lower.

    Args:
        val: Labelled outputs to fit on and to choose by.
        test: Labelled outputs of the same exits to report on.
        budgets: Fractions of the full network's cost.

    Raises:
        ValueError: If a budget is below the first exit's cost or above 1.
    """
    first, second = map(val.select, halves(val.num_samples))

    def judged(exits: Sequence[int]) -> float:
        reached = [_reached(a, b, exits, budgets) for a, b in ((first, second), (second, first))]
        return fmean(map(fmean, reached))

    kept = list(range(val.num_exits))
    placements = [(kept, judged(kept))]
    while len(kept) > 2:
        sets = [[k for k in kept if k != out] for out in kept[:-1]]
        sets = [s for s in sets if val.mean_costs[s[0]] <= min(budgets) * val.mean_costs[-1]]
        if not sets:
            break
        kept, best = max(((s, judged(s)) for s in sets), key=lambda pair: pair[1])
        placements.append((kept, best))
    return [
        Placement([k + 1 for k in exits], mean, _reached(val, test, exits, budgets))
        for exits, mean in placements
    ]


def _reached(
    fit: ExitOutputs, test: ExitOutputs, exits: Sequence[int], budgets: Sequence[float]
) -> list[float]:
    """Mean quality at each budget with only these exits (from 0)."""
    fit, test = (_only(outputs, exits) for outputs in (fit, test))
    policy = MaxProbability(common=True).fit(fit)
    rules = [policy.at_fraction(budget) for budget in budgets]
    reached: list[float] = reached_by(rules, test, test.answer_quality()).mean(1).tolist()
    return reached


def _only(outputs: ExitOutputs, exits: Sequence[int]) -> ExitOutputs:
    fields = {name: getattr(outputs, name) for name in FIELDS if name != "labels"}
    kept = {name: x[list(exits)] for name, x in fields.items() if x is not None}
    return replace(outputs, **kept)
