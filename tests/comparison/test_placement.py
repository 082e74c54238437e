"""The exits to keep: an exit that helps nobody goes first, and the rest is as if it never was."""

import pytest
import torch
from tests.conftest import make_outputs

from eenet.comparison.placement import place_exits
from eenet.outputs import ExitOutputs
from eenet.policies import MaxProbability


def with_a_useless_exit(seed: int) -> ExitOutputs:
    """Five exits, the third of which says nothing, and says so with confidence."""
    outputs = make_outputs(exits=5, samples=2000, seed=seed)
    assert outputs.logits is not None
    outputs.logits[2] = 9 * torch.randn(outputs.logits[2].shape)
    return outputs


def test_a_useless_exit_is_the_first_to_go() -> None:
    val, test = with_a_useless_exit(0), with_a_useless_exit(1)
    budgets = [0.4, 0.6, 0.8]
    found = place_exits(val, test, budgets)
    assert [len(p.exits) for p in found] == [5, 4, 3, 2]
    assert found[1].exits == [1, 2, 4, 5]
    assert all(p.exits[-1] == 5 for p in found)
    assert sum(found[1].quality) > sum(found[0].quality)

    rows = [0, 1, 3, 4]
    fit, report = (
        ExitOutputs(o.costs[rows], o.logits[rows], labels=o.labels)  # type: ignore[index]
        for o in (val, test)
    )
    policy = MaxProbability(common=True).fit(fit)
    for budget, reached in zip(budgets, found[1].quality, strict=True):
        exits = policy.at_fraction(budget).decide(report.evidence())
        quality = report.answer_quality().gather(0, exits[None]).mean()
        assert reached == pytest.approx(float(quality))


def test_what_the_least_budget_needs_is_kept() -> None:
    outputs = make_outputs(exits=5)
    least = 1.05 * float(outputs.costs[0] / outputs.costs[-1])
    found = place_exits(outputs, outputs, [least, 0.9])
    assert all(p.exits[0] == 1 for p in found)
    with pytest.raises(ValueError, match="cannot be met"):
        place_exits(outputs, outputs, [0.5 * least])
