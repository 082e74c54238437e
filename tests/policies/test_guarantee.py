from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from tests.conftest import make_outputs

from eenet.outputs import ExitOutputs
from eenet.policies import MaxProbability, Rule
from eenet.policies.guarantee import (
    betting_p_value,
    binomial_p_value,
    within_budget,
    within_disagreement,
    within_loss,
    within_tail,
)
from eenet.policies.thresholds import at_exits


def test_p_value_is_valid_and_has_power():
    generator = torch.Generator().manual_seed(0)
    values = torch.bernoulli(torch.full((2000, 300), 0.3), generator=generator)
    # At the border of the hypothesis at most delta of the p-values lie below delta.
    assert (betting_p_value(values, 0.3, 0.1) <= 0.1).double().mean() <= 0.1
    assert (betting_p_value(values, 0.4, 0.1) <= 0.1).double().mean() > 0.9


def test_p_value_against_a_loop():
    values, mean, delta = [0.2, 0.9, 0.1, 0.4], 0.5, 0.1
    capital, best, total, squares, variance = 1.0, 1.0, 0.5, 0.25, 0.25
    for i, x in enumerate(values, 1):
        stake = min(1.0, (-2 * torch.tensor(delta).double().log().item() / (4 * variance)) ** 0.5)
        capital *= 1 - stake * (x - mean)
        best = max(best, capital)
        total += x
        squares += (x - total / (i + 1)) ** 2
        variance = squares / (i + 1)
    found = betting_p_value(torch.tensor([values]).double(), mean, delta)
    assert float(found) == pytest.approx(1 / best)


@given(st.integers(1, 3000), st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_binomial_p_value_against_scipy(count, share, mean):
    ones = int(share * count)
    values = (torch.arange(count) < ones).double()[None]
    expected = binom.cdf(ones, count, mean)
    assert float(binomial_p_value(values, mean)) == pytest.approx(expected, rel=1e-8, abs=1e-12)


def test_a_promised_disagreement_holds_over_resamplings(setting):
    rules, population = setting
    generator = torch.Generator().manual_seed(0)
    answers = population.evidence().prediction
    exits = torch.stack([rule.decide(population.evidence()) for rule in rules])
    truth = at_exits((answers != answers[-1]).double(), exits).mean(1)
    broken = 0
    for _ in range(200):
        drawn = population.select(torch.randint(20000, (500,), generator=generator))
        kept = within_disagreement(rules, drawn, 0.1, 0.1)
        broken += bool(truth[kept.position] > 0.1)
    assert broken <= 20


@pytest.fixture(scope="module")
def setting():
    costs = torch.arange(1.0, 5)
    policy = MaxProbability().fit(make_outputs(4, 1000, costs=costs))
    rules = [policy.at(b) for b in torch.linspace(1.0, 4.0, 31).tolist()]
    return rules, make_outputs(4, 20000, seed=1, costs=costs)


def test_promises_hold_over_resamplings(setting):
    """500 calibration draws: the true mean breaks the promise in at most delta of them."""
    rules, population = setting
    exits = torch.stack([rule.decide(population.evidence()) for rule in rules])
    quality = population.answer_quality()
    cost = at_exits(population.costs, exits)
    loss = (quality[-1] - at_exits(quality, exits)).double()
    true_cost, true_loss = cost.double().mean(1), loss.mean(1)
    generator = torch.Generator().manual_seed(0)
    broken_cost = broken_loss = 0
    for _ in range(500):
        drawn = torch.randint(20000, (500,), generator=generator)
        p = betting_p_value((cost[:, drawn] - 1) / 3, (2.2 - 1) / 3, 0.1)
        kept = int((p <= 0.1).int().cumprod(0).sum()) - 1
        broken_cost += kept >= 0 and bool(true_cost[kept] > 2.2)
        p = betting_p_value((loss[:, drawn].flip(0) + 1) / 2, 1.05 / 2, 0.1)
        kept = int((p <= 0.1).int().cumprod(0).sum()) - 1
        broken_loss += kept >= 0 and bool(true_loss.flip(0)[kept] > 0.05)
    assert broken_cost <= 50
    assert broken_loss <= 50


def test_rules_chosen(setting):
    rules, population = setting
    calibration = population.select(torch.arange(2000))
    chosen = within_budget(rules, calibration, 2.2, 0.1)
    assert 0 < chosen.margin < 0.15
    assert chosen.rule is rules[chosen.position]
    frugal = within_loss(rules, calibration, 0.05, 0.1)
    assert frugal.margin > 0
    assert frugal.rule.cost < 4.0
    assert within_loss(rules, calibration, 0.1, 0.1).position <= frugal.position


def test_a_wider_range_of_costs_asks_for_a_larger_margin(setting):
    rules, population = setting
    calibration = population.select(torch.arange(200))
    wide = within_budget(rules, calibration, 2.2, 0.1, cost_range=(0.5, 40.0))
    assert wide.position < within_budget(rules, calibration, 2.2, 0.1).position
    with pytest.raises(ValueError, match="range of the costs"):
        within_budget(rules, calibration, 2.2, 0.1, cost_range=(1.0, 3.0))


def test_promises_that_cannot_be_kept_are_refused(setting):
    rules, population = setting
    few = population.select(torch.arange(20))
    with pytest.raises(ValueError, match=r"budget=1\.01 cannot"):
        within_budget(rules, few, 1.01, 0.1)
    with pytest.raises(ValueError, match=r"epsilon=0\.001 cannot"):
        within_loss(rules, few, 0.001, 0.1)
    with pytest.raises(ValueError, match="delta=2"):
        within_budget(rules, few, 2.0, 2)


def test_disagreement_needs_no_labels_and_bounds_the_lost_accuracy(setting):
    rules, population = setting
    calibration = population.select(torch.arange(4000))
    blind = ExitOutputs(calibration.costs, calibration.logits)
    kept = within_disagreement(rules, blind, 0.1, 0.1)
    exits = kept.rule.decide(calibration.evidence())
    answers = calibration.logits.argmax(-1)
    differs = (at_exits(answers, exits) != answers[-1]).double().mean()
    assert kept.margin == pytest.approx(0.1 - float(differs))
    quality = calibration.answer_quality().double()
    assert float((quality[-1] - at_exits(quality, exits)).mean()) <= float(differs)
    assert kept.position < len(rules) - 1
    with pytest.raises(ValueError, match="no classes to compare"):
        within_disagreement(rules, ExitOutputs(blind.costs, pooled=torch.zeros(4, 9, 8)), 0.1, 0.1)


def test_in_expectation_a_sample_counts_with_its_worst_loss_from_there_on():
    """Three rules, exits 1, 2, 3; sample 0 agrees at exit 1 and not at 2, so it counts as lost."""
    answers = torch.tensor([[0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]])
    outputs = ExitOutputs(torch.arange(1.0, 4), torch.nn.functional.one_hot(answers, 2) * 5.0)
    ends = [[-1.0, 0, 0], [9.0, -1, 0], [9.0, 9, 0]]
    rules = [Rule(MaxProbability(), torch.tensor(t), 0.0, 0.0) for t in ends]
    # One of four is lost from exit 2 down: (1 + 1) / (4 + 1) = 0.4; at exit 3 it is 1 / 5.
    assert within_disagreement(rules, outputs, 0.4, None).position == 0
    assert within_disagreement(rules, outputs, 0.39, None).position == 2
    with pytest.raises(ValueError, match=r"epsilon=0\.19 cannot be promised on average from 4"):
        within_disagreement(rules, outputs, 0.19, None)


def test_new_promises_hold_over_resamplings(setting):
    rules, population = setting
    answers = population.logits.argmax(-1)
    exits = torch.stack([rule.decide(population.evidence()) for rule in rules])
    differs = at_exits((answers != answers[-1]).double(), exits).mean(1)
    over = (at_exits(population.costs, exits) > 3).double().mean(1)
    generator = torch.Generator().manual_seed(0)
    broken, losses = [0, 0], []
    for _ in range(100):
        sample = population.select(torch.randint(20000, (500,), generator=generator))
        broken[0] += bool(differs[within_disagreement(rules, sample, 0.1, 0.1).position] > 0.1)
        broken[1] += bool(over[within_tail(rules, sample, 3.0, 0.1, 0.1).position] > 0.1)
        losses.append(float(differs[within_disagreement(rules, sample, 0.1, None).position]))
    assert max(broken) <= 10
    assert 0.05 < sum(losses) / 100 <= 0.1


def test_a_tail_is_a_quantile_of_the_cost(setting):
    rules, population = setting
    calibration = population.select(torch.arange(2000))
    kept = within_tail(rules, calibration, 3.0, 0.2, 0.1)
    spent = at_exits(calibration.costs, kept.rule.decide(calibration.evidence()))
    assert float(spent.quantile(0.8)) <= 3
    assert kept.margin == pytest.approx(0.2 - float((spent > 3).double().mean()))
    assert within_tail(rules, calibration, 4.0, 0.2, 0.1).position == len(rules) - 1
    with pytest.raises(ValueError, match=r"alpha=0\.01 cannot"):
        within_tail(rules, calibration.select(torch.arange(20)), 3.0, 0.01, 0.1)


def test_costs_that_are_all_alike_and_huge_can_be_promised():
    outputs = make_outputs(exits=1, samples=50)
    outputs = replace(outputs, costs=outputs.costs.double() * 1e25)
    rules = [MaxProbability().fit(outputs).at_fraction(1.0)]
    assert within_budget(rules, outputs, 2 * float(outputs.costs[0]), 0.1).position == 0
