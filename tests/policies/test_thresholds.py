import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eenet.outputs.exit_outputs import mean_costs, per_sample
from eenet.policies.thresholds import (
    at_exits,
    budget_thresholds,
    check_budget,
    first_exit,
    quota_thresholds,
    solve_budget,
    tilt,
)


def slow_exits(scores: np.ndarray, thresholds: np.ndarray) -> list[int]:
    exits = []
    for n in range(scores.shape[1]):
        k = 0
        while k < len(thresholds) - 1 and scores[k, n] < thresholds[k]:
            k += 1
        exits.append(k)
    return exits


def slow_quota(scores: np.ndarray, wanted: list[int]) -> list[set[int]]:
    """Who leaves where, sample by sample, for scores without ties."""
    staying = set(range(scores.shape[1]))
    groups = []
    for k, count in enumerate(wanted):
        best_first = sorted(staying, key=lambda n: -scores[k, n])
        groups.append(set(best_first[:count]))
        staying -= groups[-1]
    return groups


def test_thresholds_of_a_hand_computed_case():
    scores = torch.tensor([[0.9, 0.5, 0.1, 0.3], [0.0, 0.2, 0.8, 0.4], [0.0, 0.0, 0.0, 0.0]])
    thresholds = quota_thresholds(scores, torch.tensor([0.25, 0.25, 0.5]))
    # Sample 0 leaves at the first exit; of the rest, sample 2 scores highest at the second.
    assert thresholds[:2].tolist() == pytest.approx([0.7, 0.6])
    assert thresholds[2] == -math.inf
    assert first_exit(scores, thresholds).tolist() == [0, 2, 1, 2]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_quota_agrees_with_a_loop_over_samples(exits, samples, seed):
    rng = np.random.default_rng(seed)
    scores = rng.permuted(np.tile(np.arange(samples, dtype=np.float32), (exits, 1)), axis=1)
    shares = torch.tensor(rng.dirichlet(np.ones(exits)))
    counts = (shares.cumsum(0) * samples).round().long()
    counts[-1] = samples
    wanted = counts.diff(prepend=torch.tensor([0])).tolist()
    thresholds = quota_thresholds(torch.tensor(scores), shares)
    found = first_exit(torch.tensor(scores), thresholds)
    for k, group in enumerate(slow_quota(scores, wanted)):
        assert set(torch.nonzero(found == k).flatten().tolist()) == group
    assert found.tolist() == slow_exits(scores, thresholds.numpy())


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 5), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_ties_leave_together_and_later_exits_make_up(exits, samples, seed):
    rng = np.random.default_rng(seed)
    scores = torch.tensor(rng.integers(0, 3, (exits, samples)).astype(np.float32))
    thresholds = quota_thresholds(scores, torch.ones(exits) / exits)
    assert not thresholds.isnan().any()
    found = first_exit(scores, thresholds)
    for k in range(exits - 1):
        here = scores[k][found >= k]
        left = scores[k][found == k]
        assert not set(left.tolist()) & set(here[here < thresholds[k]].tolist())


def test_constant_scores_send_everyone_to_the_nearer_side():
    scores = torch.zeros(2, 10)
    assert (
        first_exit(scores, quota_thresholds(scores, torch.tensor([0.8, 0.2]))).tolist() == [0] * 10
    )
    assert (
        first_exit(scores, quota_thresholds(scores, torch.tensor([0.2, 0.8]))).tolist() == [1] * 10
    )


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 8), st.floats(0.001, 0.999), st.integers(0, 2**32 - 1))
def test_the_geometric_distribution_meets_any_feasible_budget(exits, where, seed):
    costs = torch.tensor(np.cumsum(np.random.default_rng(seed).uniform(0.1, 5, exits)))
    budget = float(costs[0] + where * (costs[-1] - costs[0]))
    strength = solve_budget(lambda s: float((tilt(torch.ones(exits), s) * costs).sum()), budget)
    shares = tilt(torch.ones(exits), strength)
    assert float((shares * costs).sum()) == pytest.approx(budget, rel=1e-6)
    ratios = shares[1:] / shares[:-1]
    assert torch.allclose(ratios, ratios[:1].expand_as(ratios))


@st.composite
def tied_scores(draw):
    """Scores `[E, N]` of few values or many, exit shares (some zero) and costs `[E]`."""
    exits, samples = draw(st.integers(1, 5)), draw(st.integers(1, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scores = rng.integers(0, draw(st.sampled_from([1, 2, 10, 10**6])), (exits, samples))
    shares = rng.dirichlet(np.ones(exits)) * rng.integers(0, 3, exits)
    shares[rng.integers(exits)] += 1e-6
    costs = 1 + np.cumsum(rng.choice([0, 0.1, 1, 2.5], exits))
    return torch.tensor(scores, dtype=torch.float32), torch.tensor(shares), torch.tensor(costs)


@given(tied_scores(), st.sampled_from([0.0, 1.0]) | st.floats(0, 1), st.booleans())
def test_a_budget_is_never_exceeded_on_its_own_samples_whatever_ties(case, place, by_sample):
    scores, shares, costs = case
    samples = scores.shape[1]
    if by_sample:
        costs = costs[:, None] * torch.linspace(0.5, 1.5, samples, dtype=torch.float64)
    low, high = mean_costs(costs)[[0, -1]].tolist()
    budget = low + place * (high - low)
    thresholds = budget_thresholds(scores, costs, shares, budget)
    spent = at_exits(costs, first_exit(scores, thresholds)).mean()
    assert spent <= budget * (1 + 2e-9)
    tie = max(int(row.unique(return_counts=True)[1].max()) for row in scores)
    assert spent >= budget - (tie + 0.5) * float((costs[-1] - costs[0]).max()) / samples - 1e-9
    if not by_sample:
        repeated = per_sample(costs, samples).contiguous()
        assert torch.equal(budget_thresholds(scores, repeated, shares, budget), thresholds)


def test_constant_scores_spend_what_the_dearest_exit_within_the_budget_costs():
    costs, scores = torch.tensor([1.0, 2.0, 3.0]), torch.zeros(3, 200)
    for budget, spent in ((1.0, 1), (1.9, 1), (2.0, 2), (2.6, 2), (3.0, 3)):
        thresholds = budget_thresholds(scores, costs, torch.ones(3), budget)
        assert costs[first_exit(scores, thresholds)].mean() == spent


def test_costs_by_exit_and_by_sample():
    exits = torch.tensor([[0, 1], [1, 1]])
    assert at_exits(torch.tensor([1.0, 5.0]), exits).tolist() == [[1, 5], [5, 5]]
    per_sample = torch.tensor([[1.0, 2.0], [5.0, 7.0]])
    assert at_exits(per_sample, exits).tolist() == [[1, 7], [5, 7]]
    assert at_exits(per_sample, exits[0]).tolist() == [1, 7]


def test_an_infeasible_budget_is_refused_with_the_range():
    costs = torch.tensor([2.0, 5.0, 10.0])
    with pytest.raises(ValueError, match=r"budget=1.*between 2.*and 10.*0.200 to 1"):
        check_budget(1.0, costs)
    with pytest.raises(ValueError, match="budget=11"):
        check_budget(11.0, costs)
    assert check_budget(2.0, costs) == 2.0
