import copy

import pytest
import torch
from tests.policies.test_eenet_plus import make_outputs

from eenet.outputs import ExitOutputs
from eenet.policies import (
    EENet,
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
from eenet.policies.thresholds import at_exits

BUDGETS = [1.5, 2.5]


def predicting(*classes):
    """Logits of exits that predict these classes of three, each with the same confidence."""
    return torch.stack([3.0 * torch.nn.functional.one_hot(torch.tensor([c]), 3) for c in classes])


def train(policy, outputs, epochs=200, lr=0.05):
    torch.manual_seed(0)
    policy.prepare(outputs, BUDGETS)
    optimizer = torch.optim.Adam(policy.parameters(), lr)
    evidence, quality = outputs.evidence(), outputs.answer_quality()
    for epoch in range(epochs):
        optimizer.zero_grad()
        policy.loss(evidence, quality, epoch).backward()
        optimizer.step()
    return policy.fit(outputs)


def test_votes_and_runs_by_hand():
    outputs = ExitOutputs(costs=torch.tensor([1.0, 2, 3, 4]), logits=predicting(0, 1, 1, 0))
    doubt = float(outputs.evidence().one_minus_max[0, 0])
    votes = score_exits(Vote(), outputs.evidence())[:, 0] + doubt
    runs = score_exits(Patience(), outputs.evidence())[:, 0] + doubt
    assert votes.round().tolist() == [0, -1, -1, -2]  # most votes 1, 1, 2, 2 of 1, 2, 3, 4
    assert runs.round().tolist() == [0, -1, -1, -3]  # runs 1, 1, 2, 1


@pytest.mark.parametrize("policy", [Vote(), Patience(), Random(), Temperature()])
def test_meets_budgets_step_by_step(policy):
    policy.fit(make_outputs(2000))
    evidence = make_outputs(400, seed=2).evidence()
    for budget in BUDGETS:
        rule = policy.at(budget)
        assert rule.cost == pytest.approx(budget, rel=0.01)
        expected = rule.decide(evidence)
        staying, state, exits = torch.arange(400), None, torch.zeros(400, dtype=torch.long)
        for k in range(4):
            shown = type(evidence)(*(field[k, staying] for field in evidence))
            score, state = rule.scorer.step(k, shown, state)
            leaves = (score >= rule.thresholds[k]) | (k == 3)
            exits[staying[leaves]] = k
            staying = staying[~leaves]
            if isinstance(state, tuple):
                state = tuple(part[~leaves] for part in state)
            elif state is not None:
                state = state[~leaves]
        assert torch.equal(exits, expected)


def test_random_is_the_floor():
    """Its quality is that of its own exit distribution: chance knows nothing of the samples."""
    outputs, test = make_outputs(2000), make_outputs(8000, seed=1)
    exits = Random().fit(outputs).at(2.0).decide(test.evidence())
    quality = test.answer_quality()
    shares = torch.bincount(exits, minlength=4) / 8000
    assert float(at_exits(quality, exits).mean()) == pytest.approx(
        float(shares @ quality.mean(1)), abs=0.02
    )
    smart = MaxProbability().fit(outputs).at(2.0).decide(test.evidence())
    assert at_exits(quality, smart).mean() > at_exits(quality, exits).mean() + 0.03


def test_temperature_against_a_grid():
    outputs = make_outputs(500)
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
def test_banks_learn_and_meet_budgets(policy):
    other = copy.deepcopy(policy)  # sized later, by what it loads
    outputs, test = make_outputs(1500), make_outputs(3000, seed=1)
    train(policy, outputs)
    quality = test.answer_quality()
    chance = Random().fit(outputs)
    for budget in BUDGETS:
        rule = policy.at(budget)
        assert rule.cost == pytest.approx(budget, rel=0.01)
        ours = at_exits(quality, rule.decide(test.evidence())).mean()
        assert ours > at_exits(quality, chance.at(budget).decide(test.evidence())).mean() + 0.01
    with pytest.raises(ValueError, match="budget=2"):
        policy.at(2.0)
    other.load_state_dict(policy.state_dict())
    expected = policy.at(1.5).decide(test.evidence())
    assert torch.equal(other.at(1.5).decide(test.evidence()), expected)


def test_leaving_probabilities_sum_to_one_and_members_do_not_interact():
    outputs = make_outputs(100)
    policy = train(JointGates(), outputs, epochs=3)
    assert torch.allclose(policy.leaving(outputs.evidence())[1].exp().sum(1), torch.ones(2, 100))
    both = policy.gate[0].weight.detach().clone()
    alone = JointGates()
    torch.manual_seed(0)
    alone.prepare(outputs, BUDGETS[:1])
    optimizer = torch.optim.Adam(alone.parameters(), 0.05)
    for epoch in range(3):
        optimizer.zero_grad()
        alone.loss(outputs.evidence(), outputs.answer_quality(), epoch).backward()
        optimizer.step()
    assert torch.allclose(alone.gate[0].weight, both[:1], atol=1e-5)


def test_ablation_flags_are_checked():
    with pytest.raises(ValueError, match="exit_distribution='uniform'"):
        EENet(exit_distribution="uniform")
