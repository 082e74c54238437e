"""The least budget for a loss: against trying every budget, with and without a guarantee."""

from dataclasses import replace

import pytest
import torch
from tests.conftest import make_outputs

from eenet.metrics import budget_within_ms, least_budget
from eenet.modules import fit_policies
from eenet.policies import EENet, MaxProbability, within_disagreement, within_loss, within_tail
from eenet.policies.thresholds import at_exits


@pytest.fixture(scope="module")
def policy():
    return MaxProbability().fit(make_outputs(4, 1000))


def loss_at(policy, outputs, budget):
    quality = outputs.answer_quality()
    exits = policy.at_fraction(budget).decide(outputs.evidence())
    return float((quality[-1] - at_exits(quality, exits)).double().mean())


def test_the_estimate_is_the_cheapest_that_keeps_the_loss(policy):
    test = make_outputs(4, 2000, seed=1)
    asked = least_budget(policy, test, 0.03)
    budgets = torch.linspace(policy.least_budget, 1, 41, dtype=torch.float64).tolist()
    assert asked.budget == next(b for b in budgets if loss_at(policy, test, b) <= 0.03)
    assert asked.loss == pytest.approx(loss_at(policy, test, asked.budget), abs=1e-6)
    assert asked.interval[0] < asked.loss < asked.interval[1]
    assert asked.delta is None
    assert "an estimate" in str(asked)
    assert least_budget(policy, test, 1.0).budget == pytest.approx(policy.least_budget)
    assert least_budget(policy, test, 0.01).budget >= asked.budget


def test_a_promise_is_that_of_learn_then_test(policy):
    cal = make_outputs(4, 2000, seed=2)
    asked = least_budget(policy, cal, 0.03, 0.1)
    budgets = torch.linspace(policy.least_budget, 1, 41, dtype=torch.float64).tolist()
    kept = within_loss([policy.at_fraction(b) for b in budgets], cal, 0.03, 0.1)
    assert asked.budget == budgets[kept.position]
    assert asked.loss == pytest.approx(loss_at(policy, cal, asked.budget), abs=1e-6)
    assert str(asked).endswith("promised with probability 0.9")


def test_disagreement_is_asked_for_without_labels(policy):
    traffic = replace(make_outputs(4, 2000, seed=2), labels=None)
    budgets = torch.linspace(policy.least_budget, 1, 41, dtype=torch.float64).tolist()
    rules = [policy.at_fraction(b) for b in budgets]
    answers = traffic.evidence().prediction
    differs = [
        float(
            (answers.gather(0, rule.decide(traffic.evidence())[None])[0] != answers[-1])
            .float()
            .mean()
        )
        for rule in rules
    ]
    asked = least_budget(policy, traffic, 0.1, of="disagreement")
    assert asked.budget == next(b for b, d in zip(budgets, differs, strict=True) if d <= 0.1)
    assert asked.loss == pytest.approx(differs[budgets.index(asked.budget)], abs=1e-6)
    assert "for a disagreement of at most 0.1: an estimate" in str(asked)
    kept = within_disagreement(rules, traffic, 0.1, 0.1)
    promised = least_budget(policy, traffic, 0.1, 0.1, "disagreement")
    assert promised.budget == budgets[kept.position] >= asked.budget


def test_a_latency_for_most_samples_is_the_largest_budget_that_keeps_it(policy):
    test, ms = make_outputs(4, 2000, seed=1), torch.tensor([1.0, 2.0, 3.0, 5.0]).double()
    budgets = torch.linspace(policy.least_budget, 1, 41, dtype=torch.float64).tolist()
    rules = [policy.at_fraction(b) for b in budgets]
    late = [float((ms[rule.decide(test.evidence())] > 3).double().mean()) for rule in rules]
    asked = budget_within_ms(policy, test, ms, 3, tail=0.11)
    best = max(b for b, share in zip(budgets, late, strict=True) if share <= 0.1)
    assert asked.budget == best
    # One percent of the samples at the other exits may be late as well.
    assert asked.loss == pytest.approx(late[budgets.index(best)] + 0.01)
    assert asked.interval[0] < asked.loss < asked.interval[1]
    assert "for a share above 3 ms of at most 0.11: an estimate" in str(asked)
    promised = budget_within_ms(policy, test, ms, 3, 0.11, delta=0.1)
    kept = within_tail(rules, replace(test, costs=ms), 3, 0.1, 0.1)
    assert promised.budget == budgets[kept.position] <= best
    assert budget_within_ms(policy, test, ms, 5).budget == 1
    with pytest.raises(ValueError, match=r"max_ms=2, tail=0\.02 cannot be promised at delta"):
        budget_within_ms(policy, test.select(torch.arange(20)), ms, 2, 0.02, delta=0.1)
    with pytest.raises(ValueError, match=r"max_ms=0\.5: exit 1 alone takes 1 ms"):
        budget_within_ms(policy, test, ms, 0.5)
    with pytest.raises(ValueError, match=r"tail=0\.01 must be above"):
        budget_within_ms(policy, test, ms, 3, tail=0.01)


def test_what_cannot_be_served_is_refused(policy):
    test = make_outputs(4, 300, seed=1)
    with pytest.raises(ValueError, match=r"max_disagreement=0\.001 cannot be promised"):
        least_budget(policy, test, 0.001, 0.1, "disagreement")
    assert least_budget(policy, test, 2, 0.1, "disagreement").budget == policy.least_budget
    with pytest.raises(ValueError, match="max_loss=-1 must be 0 or more"):
        least_budget(policy, test, -1)
    with pytest.raises(ValueError, match="not fitted"):
        least_budget(MaxProbability(), test, 0.1)
    few = EENet()
    fit_policies([few], make_outputs(4, 200), [0.2], epochs=2)
    with pytest.raises(ValueError, match="fit larger ones"):
        least_budget(few, test, 0.001)
    assert least_budget(few, test, 1.0).budget == pytest.approx(0.2)
