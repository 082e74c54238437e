import copy
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conftest import make_outputs

from eenet.outputs import ExitOutputs
from eenet.policies import EENetPlus, Margin
from eenet.policies.base import score_exits
from eenet.policies.eenet_plus import critical_price
from eenet.policies.nested import NestedFamily, common_thresholds
from eenet.policies.thresholds import at_exits, first_exit


@pytest.mark.parametrize(
    ("exits", "classes", "samples"), [(1, 3, 50), (2, 2, 200), (8, 4, 300), (3, 1000, 200)]
)
def test_any_size_meets_budgets_on_its_calibration_samples(exits, classes, samples):
    outputs = make_outputs(exits, samples, classes)
    policy = EENetPlus().fit(outputs)
    for budget in torch.linspace(1, float(outputs.costs[-1]), 4).tolist():
        rule = policy.at(budget)
        assert rule.cost <= budget * (1 + 1e-6)
        assert rule.cost >= budget - 3 * exits / samples * 8
        assert rule.decide(outputs.evidence()).max() < exits


def test_constant_evidence_and_constant_quality():
    logits = torch.zeros(3, 60, 4)
    outputs = ExitOutputs(
        costs=torch.tensor([1.0, 2, 3]), logits=logits, labels=torch.ones(60).long()
    )
    rule = EENetPlus().fit(outputs).at(2.0)
    assert rule.cost == 1.0  # more never buys anything


def test_per_sample_costs_and_real_valued_quality():
    base = make_outputs(per_sample_costs=True)
    outputs = make_outputs(per_sample_costs=True, quality=base.answer_quality() * 7 - 3)
    policy = EENetPlus().fit(outputs)
    assert policy.at(4.0).cost == pytest.approx(4.0, rel=0.01)


def test_learns_what_confidence_hides():
    """Class 0 gains from going on, class 1 does not, both equally unsure: stopping must differ."""
    generator = torch.Generator().manual_seed(0)
    samples = 4000
    kind = torch.randint(2, (samples,), generator=generator)
    first = torch.where(torch.rand(samples, generator=generator) < 0.6, kind, 1 - kind)
    # Answer 0 at exit 1 is right with 60 %; the last exit mends class 0's answers, not class 1's.
    logits = torch.zeros(2, samples, 2)
    logits[0, torch.arange(samples), first] = 0.4
    right = torch.where(first == 0, kind, first)
    logits[1, torch.arange(samples), right] = 4.0
    outputs = ExitOutputs(costs=torch.tensor([1.0, 2.0]), logits=logits, labels=kind)
    train = outputs.select(torch.arange(2000))
    test = outputs.select(torch.arange(2000, samples))
    share = (first == 0).float().mean()
    rule = EENetPlus().fit(train).at(1 + float(share) + 0.02)
    exits = rule.decide(test.evidence())
    assert torch.equal(exits, (first[2000:] == 0).long())


def test_reaches_the_value_of_exact_optimal_stopping():
    """Three exits with noisy discrete signals; the optimum comes from dynamic programming."""
    generator = torch.Generator().manual_seed(1)
    samples, levels = 20000, 3
    accuracy = torch.tensor([[0.95, 0.7, 0.4], [0.97, 0.8, 0.6]])  # right given the level shown
    last = torch.tensor([[0.95, 0.9, 0.75], [0.97, 0.9, 0.65]])  # last exit right, given level 1, 2
    first = torch.randint(levels, (samples,), generator=generator)
    moves = torch.tensor([[0.8, 0.15, 0.05], [0.5, 0.3, 0.2], [0.2, 0.4, 0.4]])
    second = torch.multinomial(moves[first], 1, generator=generator)[:, 0]

    def draw(p):
        return (torch.rand(samples, generator=generator) < p).float()

    quality = torch.stack(
        [draw(accuracy[0][first]), draw(accuracy[1][second]), draw(last[1][second])]
    )
    shown = torch.tensor([3.0, 1.0, 0.2])
    logits = torch.zeros(3, samples, 2)
    logits[0, :, 0], logits[1, :, 0] = shown[first], shown[second]
    costs = torch.tensor([0.2, 0.5, 1.0])
    outputs = ExitOutputs(costs=costs, logits=logits, quality=quality)
    half = samples // 2
    policy = EENetPlus().fit(outputs.select(torch.arange(half)))
    scores = score_exits(policy, outputs.evidence())[:, half:]
    for price in (0.1, 0.3, 0.6):
        going = torch.maximum(accuracy[1] - price * 0.5, last[1] - price)  # at exit 2, per level
        exact = torch.maximum(accuracy[0] - price * 0.2, moves @ going).mean()
        family = NestedFamily(scores, costs)
        value = family.climb(quality[:, half:]) - price * family.cost
        assert float(value.max()) == pytest.approx(float(exact), abs=0.012)


@pytest.fixture(scope="module")
def policy():
    return EENetPlus().fit(make_outputs(exits=4, samples=600))


@settings(max_examples=30, deadline=None)
@given(st.floats(0.1, 1.0), st.floats(0.1, 1.0))
def test_larger_budget_lets_nobody_leave_earlier(policy, a, b):
    fresh = make_outputs(exits=4, samples=300, seed=5).evidence()
    rules = policy.at_fraction(min(a, b)), policy.at_fraction(max(a, b))
    assert (rules[0].decide(fresh) <= rules[1].decide(fresh)).all()


def test_the_rule_is_that_of_the_latest_calibration(policy):
    policy = copy.deepcopy(policy)
    policy.at(4.0)
    other = make_outputs(exits=4, samples=300, seed=11, per_sample_costs=True)
    rule = policy.calibrate(other).at(3.0)
    spent = at_exits(other.costs, rule.decide(other.evidence())).double()
    assert rule.cost == pytest.approx(float(spent.mean()))
    assert rule.cost_se == pytest.approx(float(spent.std(correction=0)) / 300**0.5)


def test_samples_are_scored_in_blocks(policy, monkeypatch):
    evidence = make_outputs(exits=4, seed=1).evidence()
    whole = score_exits(policy, evidence)
    monkeypatch.setattr("eenet.policies.base._BLOCK", 77)
    assert torch.allclose(score_exits(policy, evidence), whole, atol=1e-5)


def test_not_worse_than_margin_where_nothing_else_can_be_learned():
    train, test = (make_outputs(4, samples, 2, seed=samples) for samples in (2000, 4000))
    ours, margin = EENetPlus().fit(train), Margin().fit(train)
    quality = test.answer_quality()
    for budget in (0.2, 0.4, 0.7):
        a, b = (
            at_exits(quality, p.at_fraction(budget).decide(test.evidence())) for p in (ours, margin)
        )
        difference = a - b
        assert difference.mean() > -3 * difference.std() / 4000**0.5 - 1e-3


def test_critical_price_by_hand():
    prices = torch.tensor([0.0, 1.0, 2.0])
    gains = torch.tensor([[1.0, 0.5, -0.5], [-0.2, -1.0, -2.0], [3.0, 2.0, 1.0], [1.0, 2.0, -1.5]])
    found = critical_price(gains, prices, torch.tensor(0.5))
    # The last row is pooled to 1.5, 1.5, -1.5 before its zero is looked for.
    assert found.tolist() == pytest.approx([1.5, -0.4, 4.0, 1.5])


def test_nested_family_against_brute_force():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(6, (3, 40), generator=generator).float()  # many ties
    costs = torch.rand(3, 40, generator=generator).cumsum(0) + 0.1
    family = NestedFamily(scores, costs)
    best = {}
    for t in [-math.inf, *(x / 2 for x in range(-1, 13)), math.inf]:
        exits = first_exit(scores, common_thresholds(t, 3))
        best[t] = float(at_exits(costs, exits).mean())
    budgets = torch.linspace(family.mean_costs[0], family.mean_costs[-1], 9, dtype=torch.float64)
    for budget in budgets.tolist():
        exits = first_exit(scores, common_thresholds(family.threshold(budget), 3))
        spent = float(at_exits(costs, exits).mean())
        assert spent == pytest.approx(max(c for c in best.values() if c <= budget + 1e-6))
    untied = NestedFamily(torch.rand(3, 40, generator=generator).cumsum(0), costs)
    quality = torch.rand(3, 40, generator=generator)
    reached = [
        at_exits(quality, first_exit(untied.scores, common_thresholds(untied.threshold(b), 3)))
        for b in budgets.tolist()
    ]
    found = untied.mean_over(quality, budgets)
    torch.testing.assert_close(found.float(), torch.stack(reached).mean(0))


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="folds=1"):
        EENetPlus(folds=1)
    with pytest.raises(ValueError, match="only 3 samples to fit on; it needs 5"):
        EENetPlus().fit(make_outputs(samples=3))


def test_without_labels_it_learns_what_the_last_exit_says():
    outputs = make_outputs(samples=300)
    unlabelled = replace(outputs, labels=None)
    told = replace(outputs, quality=outputs.expected_quality())
    free, given = EENetPlus().fit(unlabelled), EENetPlus().fit(told)
    for name, value in free.state_dict().items():
        assert torch.equal(value, given.state_dict()[name])
    soft, hard = EENetPlus(soft=0.75).fit(outputs), EENetPlus().fit(outputs)
    assert not torch.equal(soft.weight, hard.weight)
    assert torch.equal(EENetPlus(soft=1).fit(outputs).weight, free.weight)
    with pytest.raises(ValueError, match=r"soft=1\.5 must lie between 0 and 1"):
        EENetPlus(soft=1.5)
