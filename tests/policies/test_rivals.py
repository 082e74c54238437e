import math

import pytest
import torch
from tests.conftest import make_outputs
from tests.policies.contract import fitted

from eenet.outputs import ExitOutputs
from eenet.policies import (
    BEEM,
    ZTW,
    EENet,
    Entropy,
    JointGates,
    LearnedStopping,
    MaxProbability,
    Patience,
    Random,
    Temperature,
    Vote,
)
from eenet.policies.base import score_exits
from eenet.policies.heuristics import _inverse_temperature
from eenet.policies.nested import common_thresholds
from eenet.policies.thresholds import at_exits, first_exit

BUDGETS = [0.3, 0.6]


def predicting(*classes):
    """Logits of exits that predict these classes of three, each with the same confidence."""
    return torch.stack([3.0 * torch.nn.functional.one_hot(torch.tensor([c]), 3) for c in classes])


def test_votes_and_runs_by_hand():
    outputs = ExitOutputs(costs=torch.tensor([1.0, 2, 3, 4]), logits=predicting(0, 1, 1, 0))
    doubt = float(outputs.evidence().one_minus_max[0, 0])
    votes = score_exits(Vote(), outputs.evidence())[:, 0] + doubt
    runs = score_exits(Patience(), outputs.evidence())[:, 0] + doubt
    assert votes.round().tolist() == [0, -1, -1, -2]  # most votes 1, 1, 2, 2 of 1, 2, 3, 4
    assert runs.round().tolist() == [0, -1, -1, -3]  # runs 1, 1, 2, 1


def test_random_is_the_floor():
    """Its quality is that of its own exit distribution: chance knows nothing of the samples."""
    outputs, test = make_outputs(samples=2000), make_outputs(samples=8000, seed=1)
    exits = Random().fit(outputs).at(4.0).decide(test.evidence())
    quality = test.answer_quality()
    shares = torch.bincount(exits, minlength=3) / 8000
    assert float(at_exits(quality, exits).mean()) == pytest.approx(
        float(shares @ quality.mean(1)), abs=0.02
    )
    smart = MaxProbability().fit(outputs).at(4.0).decide(test.evidence())
    assert at_exits(quality, smart).mean() > at_exits(quality, exits).mean() + 0.03


def test_temperature_against_a_grid():
    outputs = make_outputs(samples=500)
    log_probs = outputs.evidence().log_probs[1]

    def loss(inverse):
        return float(torch.nn.functional.cross_entropy(log_probs * inverse, outputs.labels))

    grid = torch.linspace(0.05, 5, 400).tolist()
    found = float(_inverse_temperature(outputs, 1))
    assert loss(found) <= min(map(loss, grid)) + 1e-6
    with pytest.raises(ValueError, match="labels"):
        Temperature().fit(ExitOutputs(costs=outputs.costs, logits=outputs.logits))


@pytest.mark.parametrize(
    "policy",
    [
        LearnedStopping(),
        JointGates(),
        EENet(weight_scores=False, vote=False, past_scores=False, exit_distribution="geometric"),
    ],
)
def test_banks_learn(policy):
    outputs, test = (make_outputs(4, samples, seed=samples) for samples in (1500, 3000))
    fitted(policy, outputs, BUDGETS, range(200), lr=0.05)
    quality, chance = test.answer_quality(), Random().fit(outputs)
    for budget in BUDGETS:
        ours, floor = (p.at_fraction(budget).decide(test.evidence()) for p in (policy, chance))
        assert at_exits(quality, ours).mean() > at_exits(quality, floor).mean() + 0.01


def test_leaving_probabilities_sum_to_one_and_members_do_not_interact():
    outputs = make_outputs(samples=100)
    both, alone = (
        fitted(JointGates(), outputs, budgets, range(3), lr=0.05)
        for budgets in (BUDGETS, BUDGETS[:1])
    )
    assert torch.allclose(both.leaving(outputs.evidence())[1].exp().sum(1), torch.ones(2, 100))
    assert torch.allclose(alone.gate[0].weight, both.gate[0].weight[:1], atol=1e-5)


def test_ablation_flags_are_checked():
    with pytest.raises(ValueError, match="exit_distribution='uniform'"):
        EENet(exit_distribution="uniform")


def test_beem_adds_weighted_confidences_of_exits_that_agree():
    outputs = make_outputs(exits=4, samples=60)
    policy = BEEM().fit(outputs)
    accuracy = outputs.answer_quality().mean(1).tolist()
    probs = outputs.logits.softmax(-1)
    for n in range(60):
        score, before = 0.0, None
        for k in range(4):
            sure, answer = probs[k, n].max(0)
            score = accuracy[k] * float(sure) + (score if answer == before else 0.0)
            before = answer
            assert policy.calibration_scores[k, n] == pytest.approx(score, abs=1e-5)


def ensemble_logits(policy, log_probs, k):
    """Logits of the ensemble at exit k for one sample, of log-probabilities by exit and class."""
    classes = range(len(log_probs[0]))
    weights, bias = policy.weights.tolist(), policy.bias.tolist()
    return [
        bias[k][c] + sum(weights[k][j] * log_probs[j][c] for j in range(k + 1)) for c in classes
    ]


def ensemble_loss(policy, outputs, k):
    """Mean cross-entropy of the ensemble at exit k."""
    total = 0.0
    log_probs = outputs.logits.log_softmax(-1).transpose(0, 1).tolist()
    for sample, label in zip(log_probs, outputs.labels.tolist(), strict=True):
        logits = ensemble_logits(policy, sample, k)
        total += math.log(sum(map(math.exp, logits))) - logits[label]
    return total / len(log_probs)


def test_ztw_scores_by_a_weighted_geometric_mean_of_the_exits_so_far():
    outputs = make_outputs(exits=4, samples=60)
    policy = ZTW().fit(outputs)
    for n, sample in enumerate(outputs.logits.log_softmax(-1).transpose(0, 1).tolist()):
        for k in range(4):
            odds = [math.exp(z) for z in ensemble_logits(policy, sample, k)]
            sure = max(odds) / sum(odds)
            assert policy.calibration_scores[k, n] == pytest.approx(sure - 1, abs=1e-5)
    last = outputs.evidence().one_minus_max[-1]  # which has no ensemble
    assert torch.allclose(policy.calibration_scores[-1], -last, atol=1e-6)


def test_ztw_finds_the_least_cross_entropy():
    """No small change of one log-weight or bias makes it better, and plain means are worse."""
    outputs = make_outputs(exits=3, samples=300)
    policy = ZTW().fit(outputs)
    for k in range(2):
        least = ensemble_loss(policy, outputs, k)
        slack = [1e-5, 1e-3][k]  # the first exit's best weight in the second ensemble is 0, at -inf
        for change in (-0.1, 0.1):
            for place in range(k + 1):
                before = float(policy.weights[k, place])
                policy.weights[k, place] = before * math.exp(change)
                assert ensemble_loss(policy, outputs, k) > least - slack
                policy.weights[k, place] = before
            for place in range(outputs.num_classes):
                policy.bias[k, place] += change
                assert ensemble_loss(policy, outputs, k) > least - slack
                policy.bias[k, place] -= change
        policy.weights[k, : k + 1], policy.bias[k] = 1 / (k + 1), 0.0
        assert ensemble_loss(policy, outputs, k) > least + 1e-3


def test_ztw_in_batches_comes_near_the_least_cross_entropy_of_sorted_samples(monkeypatch):
    outputs = make_outputs(exits=3, samples=300)
    outputs = outputs.select(outputs.labels.argsort())
    whole = ZTW().fit(outputs)
    monkeypatch.setattr("eenet.policies.ztw._BATCH", 100 * outputs.num_classes)
    parts = ZTW().fit(outputs)
    for k in range(2):
        least = ensemble_loss(whole, outputs, k)
        assert least < ensemble_loss(parts, outputs, k) < least + 2e-3


def test_ztw_without_labels_learns_from_the_last_exit(outputs):
    """Whose answers as labels, where it is sure of them, give nearly the same ensembles."""
    sure = outputs.logits.clone()
    sure[-1] *= 1e4
    answers = sure[-1].argmax(-1)
    with_labels = ZTW().fit(ExitOutputs(outputs.costs, logits=sure, labels=answers))
    without = ZTW().fit(ExitOutputs(outputs.costs, logits=sure))
    assert torch.allclose(without.weights, with_labels.weights, atol=1e-2)
    assert torch.allclose(without.bias, with_labels.bias, atol=1e-2)


def test_a_common_threshold_is_the_best_of_all_that_keep_the_budget():
    outputs = make_outputs(samples=50)
    for policy in (MaxProbability(common=True), Entropy(common=True), BEEM()):
        policy.fit(outputs)
        scores, budget = policy.calibration_scores, 5.0
        costs = {
            t: float(outputs.costs[first_exit(scores, common_thresholds(t, 3))].mean())
            for t in scores[:-1].flatten().tolist()
        }
        rule = policy.at(budget)
        assert rule.thresholds[0] == rule.thresholds[1]
        assert rule.cost == pytest.approx(max(c for c in costs.values() if c <= budget))
        assert MaxProbability().fit(outputs).at(budget).thresholds.unique().numel() == 3
