"""The alarm rings rarely without drift, and soon with it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eenet.policies import Alarm
from eenet.policies.alarm import Bet


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.integers(1, 9))
def test_p_values_are_ranks_among_all_before(values, size):
    """Against counting one by one; the same however the values come in blocks."""
    bet, ties = Bet(4, seed=3), Bet(4, seed=3)._ties
    parts = [bet.p_values(part) for part in torch.tensor(values).split(size)]
    for n, (value, p) in enumerate(zip(values, torch.cat(parts).tolist(), strict=True), 1):
        larger = sum(x > value for x in values[:n])
        assert p == pytest.approx((larger + ties.random() * values[:n].count(value)) / n)


def test_the_first_stakes_by_hand():
    bet = Bet(2)
    assert bet.update(torch.tensor([0, 1])) == 1.0  # nothing is known yet: even bets
    bet._seen.zero_()[:, 0] = 95.0  # of 20 bins the first is expected with 100 of 195
    bet._ties.random = lambda: 0.0
    # 1/2 was staked before, 1/6 is now, 1/3 held back; the p-value of a lone 1 is 0.
    assert bet.update(torch.tensor([1])) == pytest.approx((1 / 2 + 1 / 6) * 20 * 100 / 195 + 1 / 3)


def shown(count, generator, scale=3.0):
    """Logits `[count, 5]` of a first exit."""
    return scale * torch.randn(count, 5, generator=generator)


def first_ring(alarm, stream, size=50):
    rung = [alarm.update(part) for part in stream.split(size)]
    assert sum(rung) == alarm.rings  # it is said once
    return size * (rung.index(True) + 1) if alarm.rings else None


def test_few_false_alarms_over_any_length():
    rung = 0
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        alarm = Alarm(5, 0.1, shown(200, generator))
        rung += first_ring(alarm, shown(4000, generator)) is not None
    assert rung <= 7  # 4 are allowed, with a standard error of 1.9


@pytest.mark.parametrize("reference", [0, 1000])
def test_a_drift_rings_soon(reference):
    generator = torch.Generator().manual_seed(0)
    known = shown(reference, generator) if reference else None
    for drifted in (lambda x: 0.5 * x, lambda x: x + torch.tensor([2.0, 0, 0, 0, 0])):
        alarm = Alarm(5, 0.01, known)
        before = shown(2000, generator)
        assert first_ring(alarm, before) is None
        assert alarm.p_value > 0.01
        assert first_ring(alarm, drifted(shown(2000, generator))) < 1000
        assert alarm.p_value <= 0.01


def test_odd_evidence_and_rates():
    alarm = Alarm(5, 0.1)
    alarm.update(torch.full((64, 5), torch.nan))
    alarm.update(torch.tensor([[100.0, 0, 0, 0, 0]]).expand(64, 5))  # sure beyond float32
    assert 0 < alarm.p_value <= 1
    with pytest.raises(ValueError, match=r"alarm=1\.5: the rate of false alarms"):
        Alarm(5, 1.5)
