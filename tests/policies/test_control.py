import math

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from tests.conftest import make_outputs

from eenet.policies import EENetPlus
from eenet.policies.control import BudgetControl

BUDGETS = st.floats(1.0, 5.0)
STEPS = st.floats(1e-3, 1.0)


@given(
    budget=BUDGETS,
    step=STEPS,
    batches=st.lists(st.tuples(st.integers(1, 70), st.floats(-0.5, 1.5)), min_size=1, max_size=60),
    greedy=st.booleans(),
)
def test_bound_on_any_sequence_of_batches(budget, step, batches, greedy):
    """An adversary picks every cost; the family only has to saturate at its ends."""
    control = BudgetControl(budget, torch.tensor([1.0, 2.0, 5.0]), step)
    total = samples = largest = 0
    for batch, level in batches:
        cost = 5.0 if (greedy or level < control.u) else 1.0
        cost = 1.0 if control.u <= 0 else 5.0 if control.u >= 1 else cost
        control.update(torch.full((batch,), cost))
        total, samples = total + batch * (cost - budget), samples + batch
        largest = max(largest, batch)
        assert control.bound() == pytest.approx(4 * (1 / step + 3 * largest) / samples)
        assert abs(total) / samples <= control.bound() * (1 + 1e-9)


@given(
    budget=BUDGETS,
    step=STEPS,
    shares=st.lists(st.integers(0, 9), min_size=4, max_size=4),
    spite=st.floats(-1.0, 2.0),
    events=st.lists(
        st.tuples(st.integers(0, 3), st.integers(1, 90), st.integers(0, 90)), max_size=90
    ),
)
@example(4.0, 0.1, [0, 0, 0, 0], -1.0, [*[(0, 10, 10)] * 50, (1, 500, 0)])  # all at once
def test_bound_with_samples_under_way(budget, step, shares, spite, events):
    """Samples wait before each exit for as long as an adversary likes, who decides them too.

    An event lets so many samples come to an exit, of whom so many stay if the adversary may say.
    The rule is set where the first exit decides, as the runtime does.
    """
    costs = [1.0, 2.0, 4.0, 5.0]
    control = BudgetControl(budget, torch.tensor(costs), step, torch.tensor(shares))
    point, waiting, total, samples, ended = control.u, [0, 0, 0, 0], 0.0, 0, 0
    for k, count, some in [*events, (1, 10**6, 0), (2, 10**6, 0), (3, 10**6, 0)]:
        reached = min(count, waiting[k]) if k else count
        staying = reached if spite < point else min(some, reached)
        staying = 0 if point <= 0 or k == 3 else reached if point >= 1 else staying
        waiting[k] -= reached if k else 0
        if staying:
            waiting[k + 1] += staying
        moved = control.decided([(k, reached, staying, 0)])
        point = moved if k == 0 else point
        total += (reached - staying) * (costs[k] - budget)
        samples += reached - staying
        assert (control.samples, control.waiting[1:]) == (samples, waiting[1:])
        if samples:
            assert abs(total) / samples <= control.bound() * (1 + 1e-9)
        if some == 1 and waiting[1]:  # a stream is given up
            control.dropped(1, waiting[1])
            ended, waiting[1] = ended + waiting[1], 0
    assert sum(waiting) == 0
    assert control.forced == ended


@pytest.mark.parametrize("size", [1, 64, 1000])
def test_a_lasting_shift_leaves_no_lasting_deviation(size):
    control = BudgetControl(3.0, torch.tensor([1.0, 5.0]), 0.01)
    for _ in range(5_000 if size == 1 else 100_000 // size):
        share = min(max(3 * control.u - 0.2, 0), 1)  # not the costs that u was calibrated on
        control.update(torch.full((size,), 1 + 4 * share))
    assert control.u == pytest.approx(0.7 / 3, abs=0.01)
    assert control.saved / control.samples == pytest.approx(0, abs=0.02)


def test_what_was_saved_is_spent_later():
    control = BudgetControl(3.0, torch.tensor([1.0, 5.0]), 0.1)
    for _ in range(1000):
        control.update(torch.tensor([1.5]))
    assert control.u > 10
    for _ in range(500):
        assert control.u > 1
        control.update(torch.tensor([5.0]))
    assert 3.0 - control.saved / control.samples < 3.0


def test_a_deadline_widens_the_bound_and_nothing_else():
    control = BudgetControl(3.0, torch.tensor([1.0, 5.0]))
    control.decided([(0, 10, 4, 0), (1, 4, 0, 0)])
    before, point = control.bound(), control.u
    other = BudgetControl(3.0, torch.tensor([1.0, 5.0]))
    other.decided([(0, 10, 4, 3), (1, 4, 0, 0)])
    assert other.bound() == pytest.approx(before + 4 * 3 / 10)
    assert other.u == point


def test_samples_under_way_count_with_what_they_will_cost():
    costs = torch.tensor([1.0, 2.0, 4.0])
    control = BudgetControl(2.0, costs, 0.01, shares=torch.tensor([40, 40, 20]))
    start = control.u
    control.decided([(0, 100, 60, 0)])  # as on the calibration samples: these reach 8/3 on average
    assert control.u == pytest.approx(start)
    for _ in range(2):
        control.decided([(1, 30, 10, 0)])
        assert control.u == pytest.approx(start)
    control.decided([(2, 20, 0, 0)])
    assert control.saved == pytest.approx(0)
    assert control.waiting == [0, 0, 0]


def test_holds_under_shift_along_a_fitted_family():
    costs = torch.arange(1.0, 5)
    policy = EENetPlus().fit(make_outputs(4, 600, costs=costs))
    stream = make_outputs(4, 3000, seed=4, costs=costs)
    evidence = type(stream)(costs=stream.costs, logits=stream.logits * 0.3).evidence()  # unsure
    control = BudgetControl(2.0, stream.costs, step=0.05)
    for start in range(0, 3000, 10):
        part = type(evidence)(*(field[:, start : start + 10] for field in evidence))
        control.update(stream.costs[policy.at_point(control.u).decide(part)])
    assert float(policy.at(2.0).decide(evidence).double().mean()) + 1 > 2.2  # without control
    assert 2.0 - control.saved / 3000 == pytest.approx(2.0, abs=control.bound())
    assert 2.0 - control.saved / 3000 == pytest.approx(2.0, rel=0.005)


def test_ends_saturate():
    policy = EENetPlus().fit(make_outputs(4, 100))
    fresh = make_outputs(4, 50, seed=2).evidence()
    assert policy.at_point(-0.1).decide(fresh).max() == 0
    assert policy.at_point(1.1).decide(fresh).min() == 3


def test_bad_input_is_refused():
    costs = torch.tensor([1.0, 2.0])
    with pytest.raises(ValueError, match="budget=3"):
        BudgetControl(3.0, costs)
    for step in (0, 1.5, math.nan):
        with pytest.raises(ValueError, match=f"step={step} must lie in"):
            BudgetControl(1.5, costs, step=step)
    control = BudgetControl(1.5, costs)
    with pytest.raises(ValueError, match="finite costs"):
        control.update(torch.tensor([1.0, math.nan]))
    assert (control.samples, control.saved) == (0, 0.0)
