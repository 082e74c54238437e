import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.policies.contract import fitted

from eenet.policies import EENet
from eenet.policies.base import score_exits
from eenet.policies.eenet import logistic

BUDGETS = [3.0, 5.0, 8.0]


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max())
    return e / e.sum()


def slow_forward(policy: EENet, m: int, logits: np.ndarray) -> tuple[list, list]:
    """Scores (logits) and assignment of one sample, after section 3.2 of the paper."""
    past, scores, heights, seen = [], [], [], []
    for k, z in enumerate(logits):
        p = softmax(z)
        seen.append(int(p.argmax()))
        a_max = p.max()
        a_ent = 1 + (p * np.log(p)).sum() / np.log(len(p))
        a_vote = max(seen.count(c) for c in seen) / (k + 1)
        x = np.concatenate([p, [a_max, a_ent, a_vote], past])
        unit, assign = policy.score[k], policy.assign[k]
        s = x @ unit.weight[m, :, 0].detach().numpy() + unit.bias[m, 0, 0].item()
        first, last = assign[0], assign[2]
        hidden = np.maximum(
            x @ first.weight[m].detach().numpy() + first.bias[m, 0].detach().numpy(), 0
        )
        heights.append(hidden @ last.weight[m, :, 0].detach().numpy() + last.bias[m, 0, 0].item())
        scores.append(s)
        past.append(1 / (1 + np.exp(-s)))
    return scores, list(softmax(np.array(heights)))


@pytest.fixture
def policy(outputs):
    torch.manual_seed(3)
    policy = EENet(alpha_ce=0.3, alpha_cost=0.7, beta=1.5, alternate=2)
    policy.prepare(outputs, BUDGETS)
    for parameter in policy.parameters():  # members that differ
        parameter.data += 0.3 * torch.randn_like(parameter)
    return policy


def test_losses_agree_with_a_loop_over_samples(policy, outputs):
    some = outputs.select(torch.arange(20))
    quality = some.answer_quality()
    scores, shares = np.zeros((3, 3, 20)), np.zeros((3, 3, 20))
    for m in range(3):
        for n in range(20):
            s, r = slow_forward(policy, m, some.logits[:, n].double().numpy())
            scores[m, :, n], shares[m, :, n] = s, r
    sigmoid = 1 / (1 + np.exp(-scores))
    q = quality.numpy()
    bce = -(q * np.log(sigmoid) + (1 - q) * np.log(1 - sigmoid))
    weights = shares / shares.sum(-1, keepdims=True)
    expected = sum((weights[m] * bce[m]).sum() / 3 for m in range(3))
    assert policy.loss(some.evidence(), quality, epoch=1).item() == pytest.approx(
        expected, rel=1e-4
    )

    expected = 0.0
    for m, budget in enumerate(BUDGETS):
        targets = sigmoid[m] ** 1.5
        targets /= targets.sum(0)
        divergence = (targets * np.log(targets / shares[m])).sum(0).mean()
        cost = (shares[m] * outputs.costs.numpy()[:, None]).sum(0).mean()
        expected += 0.3 * divergence + 0.7 * abs(cost - budget) / budget
    assert policy.loss(some.evidence(), quality, epoch=2).item() == pytest.approx(
        expected, rel=1e-4
    )


@pytest.mark.parametrize("x", [[0.7], [0.7, 0.7, 0.7], [0.0, 0.0]])
def test_the_start_of_samples_that_look_alike_is_their_mean(x):
    x, quality = torch.tensor(x), torch.arange(len(x)) / 2
    slope, bias = logistic(x, quality)
    expected = (float(quality.sum()) + 1) / (len(x) + 2)
    assert 1 / (1 + np.exp(-(slope * float(x[0]) + bias))) == pytest.approx(expected, abs=1e-6)


def test_each_turn_moves_its_own_part_alone(policy, outputs):
    quality = outputs.answer_quality()
    for epoch, moved, still in (
        (0, "score", "assign"),
        (2, "assign", "score"),
        (4, "score", "assign"),
    ):
        policy.zero_grad(set_to_none=True)
        policy.loss(outputs.evidence(), quality, epoch).backward()
        gradients = {name: p.grad for name, p in policy.named_parameters()}
        assert all(g is None or not g.any() for n, g in gradients.items() if n.startswith(still))
        assert all(g is not None for n, g in gradients.items() if n.startswith(moved))


def test_a_bank_equals_fits_one_by_one(outputs):
    turns = [step // 2 for step in range(40)]
    bank = fitted(EENet(), outputs, (0.3, 0.5, 0.8), turns, lr=0.01)
    for m, budget in enumerate((0.3, 0.5, 0.8)):
        alone = fitted(EENet(), outputs, (budget,), turns, lr=0.01)
        assert torch.allclose(
            bank.calibration_scores[m], alone.calibration_scores[0], atol=1e-4, rtol=1e-3
        )
        assert torch.allclose(bank.shares[m], alone.shares[0], atol=1e-4)


def test_the_offline_scores_are_those_of_the_slow_reference(policy, outputs):
    scores = score_exits(policy.member(1), outputs.select(torch.arange(5)).evidence())
    for n in range(5):
        expected, _ = slow_forward(policy, 1, outputs.logits[:, n].double().numpy())
        np.testing.assert_allclose(scores[:, n], expected, rtol=1e-4, atol=1e-5)


def test_training_learns_when_answers_are_right(outputs):
    evidence, quality = outputs.evidence(), outputs.answer_quality()
    untrained, trained = (
        fitted(EENet(start="random"), outputs, (0.5,), range(n), lr=0.01) for n in (0, 100)
    )
    assert trained.loss(evidence, quality, 0) < 0.9 * untrained.loss(evidence, quality, 0)


def test_the_best_state_of_each_fit_is_a_copy_which_the_end_of_training_goes_back_to(
    policy, outputs
):
    start = {name: p.detach().clone() for name, p in policy.named_parameters()}
    policy.keep_best(torch.tensor([1.0, 1.0, 1.0]))
    for parameter in policy.parameters():
        parameter.data += 1
    policy.keep_best(torch.tensor([2.0, 0.5, 1.0]))
    for parameter in policy.parameters():
        parameter.data += 1
    policy.finish(outputs)
    for name, parameter in policy.named_parameters():
        assert torch.equal(parameter[[0, 2]], start[name][[0, 2]])
        assert torch.allclose(parameter[1], start[name][1] + 1)


@pytest.mark.parametrize("probs", [True, False])
def test_it_starts_as_max_probability_with_the_likeliest_slope(outputs, probs):
    policy = EENet(probs=probs)
    policy.prepare(outputs, [5.0])
    start = policy.finish(outputs)
    sure = outputs.logits.softmax(-1).amax(-1)
    for k in range(3):
        order = sure[k].argsort()
        assert (start.calibration_scores[0, k, order].diff() >= -1e-6).all()
    assert torch.allclose(start.shares, torch.full((1, 3), 1 / 3))
    slope, bias = logistic(sure[0], outputs.answer_quality()[0])

    def loss(a, b):
        errors = F.binary_cross_entropy_with_logits
        return float(errors(a * sure[0] + b, outputs.answer_quality()[0]))

    least = loss(slope, bias)
    assert all(
        loss(slope + a, bias + b) > least for a, b in ((0.5, 0), (-0.5, 0), (0, 0.2), (0, -0.2))
    )
