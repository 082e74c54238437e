import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conftest import make_outputs

from eenet.metrics import (
    area,
    budget_at,
    mixture_curve,
    oracle_curve,
    paired_difference,
    quality_at,
    share_closed,
    stopping_curves,
)
from eenet.policies import EENetPlus
from eenet.policies.thresholds import at_exits

COST = torch.tensor([3.0, 1.0, 2.0])
QUALITY = torch.tensor([0.9, 0.5, 0.7])


def test_a_budget_is_not_below_the_first_point_by_rounding():
    third = torch.full((120,), 0.1 / 0.6, dtype=torch.float64).mean()
    found = quality_at(torch.stack([third * (1 + 1e-15), third * 3]), QUALITY[:2], third[None])
    assert float(found) == pytest.approx(float(QUALITY[0]))


def test_quality_at_by_hand():
    found = quality_at(COST, QUALITY, torch.tensor([0.5, 1.0, 1.5, 3.0, 9.0]))
    assert math.isnan(found[0])
    assert found[1:].tolist() == pytest.approx([0.5, 0.6, 0.9, 0.9])


def test_budget_at_by_hand():
    begins_late = budget_at(
        torch.tensor([1.0, 2.0, 3.0]), torch.tensor([torch.nan, 0.5, 0.7]), torch.tensor([0.4, 0.6])
    )
    torch.testing.assert_close(begins_late, torch.tensor([2.0, 2.5]).double())
    found = budget_at(COST, QUALITY, torch.tensor([0.4, 0.5, 0.6, 0.9, 0.95]))
    assert found.tolist() == pytest.approx([1.0, 1.0, 1.5, 3.0, math.inf])
    falling = budget_at(
        torch.tensor([1.0, 2, 3]), torch.tensor([0.5, 0.9, 0.8]), torch.tensor([0.85])
    )
    assert float(falling) == pytest.approx(1.875)


def test_area_by_hand():
    assert area(COST, QUALITY, 1.0, 3.0) == pytest.approx(0.7)
    assert area(COST, QUALITY, 2.0, 4.0) == pytest.approx(0.85)
    with pytest.raises(ValueError, match="low=2"):
        area(COST, QUALITY, 2.0, 2.0)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 8), st.integers(0, 10**6))
def test_quality_at_against_numpy(points, seed):
    rng = np.random.default_rng(seed)
    cost, quality = np.sort(rng.random(points)) + 1, rng.random(points)
    budgets = rng.random(5) + 1.0
    expected = np.interp(budgets, cost, quality, left=np.nan)
    found = quality_at(*map(torch.from_numpy, (cost, quality, budgets)))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-9)


def test_paired_intervals_cover_together():
    """In 200 repetitions with two equal policies, all budgets are covered in about 95 %."""
    generator = torch.Generator().manual_seed(0)
    covered = 0
    for seed in range(200):
        common = torch.rand(4, 300, generator=generator) * 0.3
        first, second = (
            (common + torch.rand(4, 300, generator=generator) < 0.7).float() for _ in range(2)
        )
        found = paired_difference(first, second, resamples=200, seed=seed)
        covered += bool(((found.low <= 0) & (found.high >= 0)).all())
    assert 0.90 <= covered / 200 <= 0.99


def test_paired_difference_degenerate_and_bad():
    same = torch.ones(2, 50)
    found = paired_difference(same, same, resamples=10)
    assert found.low.tolist() == found.high.tolist() == [0, 0]
    with pytest.raises(ValueError, match="first and second"):
        paired_difference(same, same[:1])


def test_oracle_against_brute_force():
    generator = torch.Generator().manual_seed(3)
    for _ in range(5):
        costs = torch.rand(3, 4, generator=generator).cumsum(0) + 0.1
        quality = torch.rand(3, 4, generator=generator)
        cost, value = oracle_curve(costs, quality)
        assert (cost.diff() >= 0).all()
        every = torch.tensor(list(itertools.product(range(3), repeat=4)))
        spent, reached = (v.gather(0, every.reshape(-1, 4)).mean(1) for v in (costs, quality))
        for c, v in zip(cost, value, strict=True):  # corners are assignments, and none is better
            assert float(v) == pytest.approx(float(reached[spent <= c + 1e-6].max()), abs=1e-6)


def test_oracle_of_right_and_wrong_leaves_as_early_as_any_exit_is_right():
    costs = torch.tensor([1.0, 2.0, 4.0])
    quality = torch.tensor([[1.0, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0]])
    cost, value = oracle_curve(costs, quality)
    assert (float(cost[-1]), float(value[-1])) == pytest.approx(((1 + 2 + 4 + 1) / 4, 0.75))


def test_mixture_skips_exits_under_the_envelope():
    quality = torch.tensor([[0.2], [0.3], [0.8], [0.7]])
    cost, value = mixture_curve(torch.tensor([1.0, 2.0, 3.0, 4.0]), quality)
    assert cost.tolist() == pytest.approx([1, 3])
    assert value.tolist() == pytest.approx([0.2, 0.8])


def test_share_closed():
    floor, best = torch.tensor([0.5, 0.5]), torch.tensor([0.7, 0.5])
    found = share_closed(torch.tensor([0.8, 0.6]), floor, best)
    assert float(found[0]) == pytest.approx(1.5)
    assert math.isnan(found[1])


def test_quality_of_each_sample_at_equal_cost():
    generator = torch.Generator().manual_seed(0)
    quality = torch.rand(3, 20, generator=generator)
    budgets = torch.tensor([0.5, 1.2, 2.5, 9.0])
    found = quality_at(COST, quality, budgets)
    assert found.shape == (4, 20)
    expected = quality_at(COST, quality.mean(1), budgets)
    assert torch.allclose(found.mean(1), expected, equal_nan=True)


def test_stopping_curves_enclose_what_a_fresh_fit_reaches():
    val, test = (make_outputs(4, samples, seed=samples) for samples in (2000, 4000))
    (low_cost, low), (high_cost, high) = stopping_curves(test)
    at = torch.tensor([0.4, 0.6, 0.8])
    below, above = quality_at(low_cost, low, at), quality_at(high_cost, high, at)
    assert (below <= above + 1e-3).all()
    policy = EENetPlus().fit(val)
    for budget, most in zip(at.tolist(), above.tolist(), strict=True):
        exits = policy.at_fraction(budget).decide(test.evidence())
        assert float(at_exits(test.answer_quality(), exits).mean()) <= most + 0.01
