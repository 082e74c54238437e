import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conftest import make_outputs

from eenet.policies import EENetPlus
from eenet.policies.control import BudgetControl
from eenet.policies.thresholds import at_exits


@settings(max_examples=200, deadline=None)
@given(
    budget=st.floats(1.0, 5.0),
    step=st.floats(1e-3, 10.0),
    start=st.floats(0.0, 1.0),
    batch=st.integers(1, 4),
    levels=st.lists(st.floats(-0.5, 1.5), min_size=1, max_size=60),
    greedy=st.booleans(),
)
def test_bound_on_any_sequence(budget, step, start, batch, levels, greedy):
    """An adversary picks every cost; the family only has to saturate at its ends."""
    control = BudgetControl(budget, torch.tensor([1.0, 2.0, 5.0]), step)
    control.u = start
    total = 0.0
    for n, level in enumerate(levels, 1):
        cost = 5.0 if (greedy or level < control.u) else 1.0
        cost = 1.0 if control.u <= 0 else 5.0 if control.u >= 1 else cost
        control.update(torch.full((batch,), cost))
        total += batch * (cost - budget)
        assert abs(total) / (n * batch) <= control.bound(n * batch, batch) * (1 + 1e-9)
        assert total <= 4 * start / step + batch * (5 - budget) + 1e-6
        assert -total <= 4 * (1 - start) / step + batch * (budget - 1) + 1e-6


def test_a_family_that_underspends_at_its_upper_end_builds_up_no_credit():
    control = BudgetControl(3.0, torch.tensor([1.0, 5.0]), 0.1)
    for _ in range(1000):
        control.update(torch.tensor([1.5]))
    assert control.u == pytest.approx(1 + 0.1 * 2 / 4)


def test_holds_under_shift_along_a_fitted_family():
    costs = torch.arange(1.0, 5)
    policy = EENetPlus().fit(make_outputs(4, 600, costs=costs))
    stream = make_outputs(4, 3000, seed=4, costs=costs)
    evidence = type(stream)(costs=stream.costs, logits=stream.logits * 0.3).evidence()  # unsure
    control = BudgetControl(2.0, stream.costs, step=0.05)
    spent = []
    for start in range(0, 3000, 10):
        shown = type(evidence)(*(field[:, start : start + 10] for field in evidence))
        spent.append(at_exits(stream.costs, policy.at_point(control.u).decide(shown)))
        control.update(spent[-1])
    assert float(policy.at(2.0).decide(evidence).double().mean()) + 1 > 2.2  # without control
    assert float(torch.cat(spent).mean()) == pytest.approx(2.0, abs=control.bound(3000, 10))
    assert float(torch.cat(spent).mean()) == pytest.approx(2.0, rel=0.02)


def test_ends_saturate():
    policy = EENetPlus().fit(make_outputs(4, 100))
    fresh = make_outputs(4, 50, seed=2).evidence()
    assert policy.at_point(-0.1).decide(fresh).max() == 0
    assert policy.at_point(1.1).decide(fresh).min() == 3


def test_bad_input_is_refused():
    costs = torch.tensor([1.0, 2.0])
    with pytest.raises(ValueError, match="budget=3"):
        BudgetControl(3.0, costs)
    with pytest.raises(ValueError, match="step=0"):
        BudgetControl(1.5, costs, step=0)
