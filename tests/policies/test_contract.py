"""The contract that every policy keeps, whichever classes `eenet.policies` exports."""

import pickle
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from tests.conftest import make_outputs
from tests.policies.contract import ALL, FIXED, VARIANTS, fitted, leave_step_by_step

from eenet.modules import fit_policies
from eenet.outputs import Evidence
from eenet.policies import ZTW, EENetPlus, MaxProbability, Random
from eenet.policies.base import score_exits
from eenet.policies.single_sample import SampleEvidence
from eenet.policies.thresholds import at_exits

pytestmark = pytest.mark.filterwarnings("ignore:.*many scores tie")
BUDGETS = (0.3, 0.5, 0.8)
EVERY = pytest.mark.parametrize("kind", [*ALL, *VARIANTS], ids=lambda kind: kind().label)


def test_every_kind_of_policy_is_here():
    assert {EENetPlus, MaxProbability, Random, *FIXED} < set(ALL)
    assert len(ALL) == 13
    assert len({kind.label for kind in ALL}) == len(ALL)


@EVERY
@pytest.mark.parametrize("per_sample_costs", [False, True])
def test_budgets_are_met_and_never_exceeded_on_the_calibration_samples(kind, per_sample_costs):
    outputs = make_outputs(per_sample_costs=per_sample_costs)
    policy, full = fitted(kind(), outputs), float(outputs.mean_costs[-1])
    for budget in BUDGETS:
        rule = policy.at_fraction(budget)
        assert budget - 0.01 < rule.cost / full <= budget * (1 + 1e-6)
        same = policy.at(budget * full)
        assert torch.equal(same.thresholds, rule.thresholds)
        if not isinstance(policy, EENetPlus):  # whose calibration scores are out of fold
            spent = at_exits(outputs.costs, rule.decide(outputs.evidence())).double()
            assert rule.cost == pytest.approx(float(spent.mean()))
            assert rule.cost_se == pytest.approx(float(spent.std(correction=0)) / 20, rel=1e-3)


@EVERY
def test_costs_by_sample_that_are_all_alike_change_nothing(kind, outputs):
    repeated = replace(outputs, costs=outputs.costs[:, None].repeat(1, outputs.num_samples))
    for budget in BUDGETS:
        rules = [fitted(kind(), o).at_fraction(budget) for o in (outputs, repeated)]
        assert torch.equal(rules[0].thresholds, rules[1].thresholds)


@EVERY
def test_a_decision_uses_nothing_from_later_exits(kind, outputs):
    policy = fitted(kind(), outputs)
    for budget in BUDGETS:
        rule = policy.at_fraction(budget)
        before = rule.decide(outputs.evidence())
        for k in range(outputs.num_exits - 1):
            logits = outputs.logits.clone()
            logits[k + 1 :] = torch.randn_like(logits[k + 1 :])
            after = rule.decide(Evidence.from_logits(logits))
            assert torch.equal(before <= k, after <= k)
            assert torch.equal(before[before <= k], after[before <= k])


@EVERY
def test_leaving_step_by_step_gives_the_offline_decisions(kind, outputs):
    policy, other = fitted(kind(), outputs), make_outputs(seed=1)
    for budget in BUDGETS:
        rule = policy.at_fraction(budget)
        exits, near = leave_step_by_step(rule, other)
        clear = near > 1e-5
        assert clear.sum() > 380 or kind is Random
        assert torch.equal(exits[clear], rule.decide(other.evidence())[clear])


@EVERY
def test_a_saved_or_pickled_policy_decides_as_before(kind, outputs):
    policy, other = fitted(kind(), outputs), make_outputs(seed=1).evidence()
    loaded = kind()
    loaded.load_state_dict(policy.state_dict())
    for copy in (loaded, pickle.loads(pickle.dumps(policy))):
        for budget in BUDGETS:
            rule, same = policy.at_fraction(budget), copy.at_fraction(budget)
            assert torch.equal(rule.decide(other), same.decide(other))
        copy.calibrate(make_outputs(seed=2))


@EVERY
def test_the_decision_on_one_sample_can_be_pickled_and_is_that_of_the_scores(kind, outputs):
    rule = fitted(kind(), outputs).at_fraction(0.5)
    if (decide := rule.scorer.decide_one(0)) is None:
        return
    decide = pickle.loads(pickle.dumps(decide))
    scores, threshold = score_exits(rule.scorer, outputs.evidence())[0], float(rule.thresholds[0])
    for score, logits in zip(scores.tolist(), outputs.logits[0].tolist(), strict=True):
        leaves, _ = decide(SampleEvidence.from_logits(logits), threshold, None)
        assert leaves in (None, score >= threshold)


@EVERY
def test_no_policy_can_be_used_before_it_is_fitted(kind, outputs):
    policy = kind()
    how = "was not fitted yet: call fit"
    if not policy.any_budget:
        how = (
            rf"{policy.label} is fitted for given budgets: use .*fit_policies\(\[policy\], outputs"
        )
        with pytest.raises(ValueError, match=how):
            policy.fit(outputs)
    for use in (policy.at, policy.at_fraction):
        with pytest.raises(ValueError, match=how):
            use(0.5)
    learns = not policy.fitted
    if not policy.any_budget:
        policy.prepare(outputs, [5.0])  # fresh parameters are no fit
        with pytest.raises(ValueError, match=how):
            policy.at(5.0)
    if learns:
        with pytest.raises(ValueError, match=how):
            policy.calibrate(outputs)
    else:
        assert policy.calibrate(outputs).at(5.0).cost <= 5.0


@EVERY
def test_budgets_that_are_not_served_are_refused_in_the_unit_they_were_given_in(kind, outputs):
    policy = fitted(kind(), outputs)
    with pytest.raises(ValueError, match=r"budget=0.05 cannot be met.* between 0.1,.* and 1,"):
        policy.at_fraction(0.05)
    with pytest.raises(ValueError, match=r"budget=11 cannot be met.* between 1,.* and 10,"):
        policy.at(11.0)
    if policy.any_budget:
        assert policy.at_fraction(0.35).cost <= 3.5
        return
    for use, budget, others in (
        (policy.at_fraction, 0.35, "0.3, 0.5, 0.8"),
        (policy.at, 4, "3, 5, 8"),
    ):
        way_out = f"fitted for {others} only; .* eenet.+ which serves any budget from"
        with pytest.raises(ValueError, match=rf"budget={budget}: .*{way_out}"):
            use(budget)


@EVERY
def test_nested_policies_have_working_points_and_no_other_has(kind, outputs):
    policy, evidence = fitted(kind(), outputs), make_outputs(seed=1).evidence()
    if not policy.nested:
        with pytest.raises(ValueError, match=f"{policy.label} has no nested rules"):
            policy.at_point(0.5)
        return
    exits = [policy.at_point(u).decide(evidence) for u in (-0.1, 0.2, 0.5, 0.9, 1.1)]
    assert exits[0].max() == 0
    assert exits[-1].min() == 2
    assert all((a <= b).all() for a, b in pairwise(exits))


@EVERY
def test_outputs_of_another_shape_are_refused_by_name(kind, outputs):
    rule = fitted(kind(), outputs).at_fraction(0.5)
    for exits in (2, 4):
        with pytest.raises(ValueError, match=f"fitted on 3 exits; these outputs have {exits}"):
            rule.decide(make_outputs(exits=exits).evidence())
    other = make_outputs(classes=7)
    if isinstance(kind(), (*FIXED, EENetPlus, ZTW)):
        with pytest.raises(ValueError, match=r"fitted on .*classes"):
            rule.decide(other.evidence())
    else:
        assert rule.decide(other.evidence()).max() < 3  # they know nothing of classes


@EVERY
def test_few_samples_and_one_exit_work_or_are_refused_by_name(kind):
    for samples in (1, 2, 5):
        outputs = make_outputs(samples=samples)
        if samples < kind().least_samples:
            with pytest.raises(ValueError, match=rf"only {samples} sample.*to fit on|divided"):
                fit_policies([kind()], outputs, [0.5])
        else:
            assert fitted(kind(), outputs, [0.5]).at_fraction(0.5).cost <= 5.0
    single = fitted(kind(), make_outputs(exits=1), [1.0])
    assert single.at_fraction(1.0).cost == 1.0


def test_stage_2_fits_every_policy_and_budgets_are_fractions_of_the_costs_it_was_fitted_with():
    """Costs of samples differ from file to file, and so do their means."""
    outputs, policies = make_outputs(per_sample_costs=True), [kind() for kind in ALL]
    state = torch.random.get_rng_state()
    fit_policies(policies, outputs, [0.4, 0.6], epochs=2)
    assert torch.equal(torch.random.get_rng_state(), state)
    longer = replace(make_outputs(seed=1, per_sample_costs=True), costs=outputs.costs * 1.7)
    for policy in policies:
        before = policy.at_fraction(0.4)
        assert 0.38 < before.cost / float(outputs.mean_costs[-1]) <= 0.4
        rule = policy.calibrate(longer).at_fraction(0.4)
        assert 0.38 < rule.cost / float(longer.mean_costs[-1]) <= 0.4


@pytest.mark.parametrize(("kind", "factor"), [(MaxProbability, 1e5), (EENetPlus, 0)])
def test_tied_scores_keep_the_budget_and_are_mentioned(kind, factor, outputs):
    policy = kind().fit(replace(outputs, logits=outputs.logits * factor))
    with pytest.warns(UserWarning, match="scores tie"):
        assert policy.at_fraction(0.4).cost <= 4.0


def test_calibration_needs_no_labels_and_moves_the_thresholds(outputs):
    harder = replace(outputs, logits=outputs.logits * 0.5, labels=None)
    policy = MaxProbability().fit(outputs)
    overspent = at_exits(outputs.costs, policy.at(5.0).decide(harder.evidence())).mean()
    assert float(overspent) > 5.5
    assert policy.calibrate(harder).at(5.0).cost == pytest.approx(5.0, abs=0.05)
