"""The contract that every policy keeps."""

import dataclasses

import pytest
import torch
from tests.conftest import make_outputs

from eenet.models import narrow
from eenet.outputs import Evidence
from eenet.policies import EENet, EENetPlus, Entropy, Margin, MaxProbability
from eenet.policies.base import score_exits
from eenet.policies.thresholds import at_exits

BUDGETS = [3.0, 5.0, 8.0]


def fitted(policy, outputs):
    if isinstance(policy, EENet):
        torch.manual_seed(0)
        policy.prepare(outputs, BUDGETS)
    return policy.fit(outputs)


POLICIES = pytest.mark.parametrize("make", [MaxProbability, Entropy, Margin, EENet])


@POLICIES
def test_the_budget_is_met_on_the_calibration_samples(make, outputs):
    policy = fitted(make(), outputs)
    for budget in BUDGETS:
        rule = policy.at(budget)
        spent = at_exits(outputs.costs, rule.decide(outputs.evidence())).mean()
        assert float(spent) == pytest.approx(budget, abs=9 / outputs.num_samples + 1e-6)
        assert rule.cost == pytest.approx(float(spent))


@POLICIES
def test_a_decision_uses_nothing_from_later_exits(make, outputs):
    policy = fitted(make(), outputs)
    for budget in BUDGETS:
        rule = policy.at(budget)
        before = rule.decide(outputs.evidence())
        for k in range(outputs.num_exits - 1):
            logits = outputs.logits.clone()
            logits[k + 1 :] = torch.randn_like(logits[k + 1 :])
            after = rule.decide(Evidence.from_logits(logits))
            assert torch.equal(before <= k, after <= k)
            assert torch.equal(before[before <= k], after[before <= k])


@POLICIES
def test_leaving_step_by_step_gives_the_offline_decisions(make, outputs):
    rule = fitted(make(), outputs).at(5.0)
    expected = rule.decide(outputs.evidence())
    found = torch.full_like(expected, -1)
    there, state = torch.arange(outputs.num_samples), None
    for k in range(outputs.num_exits):
        evidence = Evidence.from_logits(outputs.logits[k][there])
        scores, state = rule.scorer.step(k, evidence, state)
        leaves = scores >= rule.thresholds[k]
        found[there[leaves]] = k
        there, state = there[~leaves], narrow(state, ~leaves)
    assert not len(there)
    assert torch.equal(found, expected)


@POLICIES
def test_a_saved_policy_decides_as_before(make, outputs):
    policy = fitted(make(), outputs)
    loaded = make()
    if isinstance(loaded, EENet):
        loaded.build(len(BUDGETS), outputs.num_exits, outputs.num_classes)
    loaded.load_state_dict(policy.state_dict())
    other = make_outputs(seed=1).evidence()
    for budget in BUDGETS:
        assert torch.equal(policy.at(budget).decide(other), loaded.at(budget).decide(other))


def test_costs_may_depend_on_the_sample(outputs):
    lengths = torch.rand(outputs.num_samples, dtype=torch.float64) + 0.5
    outputs = dataclasses.replace(outputs, costs=outputs.costs[:, None] * lengths)
    rule = MaxProbability().fit(outputs).at(5.0)
    spent = at_exits(outputs.costs, rule.decide(outputs.evidence())).mean()
    assert float(spent) == pytest.approx(5.0, abs=0.05)


def test_calibration_needs_no_labels_and_moves_the_thresholds(outputs):
    harder = dataclasses.replace(outputs, logits=outputs.logits * 0.5, labels=None)
    policy = MaxProbability().fit(outputs)
    overspent = at_exits(outputs.costs, policy.at(5.0).decide(harder.evidence())).mean()
    assert float(overspent) > 5.5
    rule = policy.calibrate(harder).at(5.0)
    spent = at_exits(outputs.costs, rule.decide(harder.evidence())).mean()
    assert float(spent) == pytest.approx(5.0, abs=0.05)


def test_an_unfitted_policy_and_a_bad_budget_are_refused(outputs):
    with pytest.raises(ValueError, match="not fitted"):
        MaxProbability().at(5.0)
    with pytest.raises(ValueError, match="budget=11"):
        MaxProbability().fit(outputs).at(11.0)


def test_all_scores_rise_with_confidence(outputs):
    evidence = Evidence.from_logits(torch.tensor([[[0.0, 0.1, 0.0]], [[0.0, 9.0, 0.0]]]))
    for make in (MaxProbability, Entropy, Margin):
        scores = score_exits(make(), evidence)
        assert scores[1] > scores[0]


@pytest.mark.parametrize(("make", "factor"), [(MaxProbability, 1e5), (EENetPlus, 0)])
def test_saturated_confidences_keep_the_budget_and_are_mentioned(make, factor, outputs):
    policy = make().fit(dataclasses.replace(outputs, logits=outputs.logits * factor))
    with pytest.warns(UserWarning, match="scores tie"):
        rule = policy.at(4.0)
    assert rule.cost <= 4.0
