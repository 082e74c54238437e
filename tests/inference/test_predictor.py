"""The runtime answers as the offline policy decides, whatever batch a sample comes in."""

import pickle

import numpy as np
import pytest
import torch
from tests.conftest import make_outputs
from tests.policies.contract import ALL, fitted
from torch import nn

from eenet.inference import AdaptivePredictor
from eenet.inference.decision import SingleSample, decisions
from eenet.inference.runtime import Runtime
from eenet.models import CifarResNet, MSDNet, MultiExitNetwork, TransformerEncoder
from eenet.models.layers import fold
from eenet.outputs import Evidence, ExitOutputs
from eenet.policies import Margin, MaxProbability, Random
from eenet.policies.base import score_exits
from eenet.policies.thresholds import at_exits, first_exit


class Replay(MultiExitNetwork):
    """A network that says what was recorded: its input is the position of the sample."""

    def __init__(self, logits):
        exits = len(logits)
        identities = [nn.Identity() for _ in range(exits)]
        super().__init__(identities, [nn.Linear(1, 1), *identities[1:]], logits.shape[-1])
        self.logits = logits
        self.samples_run = [0] * exits

    def step(self, k, state):
        self.samples_run[k] += len(state)
        return self.logits[k][state], state


def replay(policy, outputs, budget=5.0, **settings):
    settings = {"budget_unit": "cost", **settings}
    return AdaptivePredictor(Replay(outputs.logits), policy, budget, **settings)


@pytest.mark.parametrize("make", ALL)
def test_decisions_are_those_of_the_offline_rule(make):
    policy, outputs = fitted(make(), make_outputs(seed=0)), make_outputs(seed=1)
    predictor = replay(policy, outputs)
    answers = predictor.predict(torch.arange(outputs.num_samples))
    exits = policy.at(5.0).decide(outputs.evidence())
    assert torch.equal(answers.exits, exits)
    assert len(exits.unique()) > 1
    assert torch.equal(answers.costs, at_exits(outputs.costs, exits))
    chosen = outputs.logits[exits, torch.arange(outputs.num_samples)]
    assert torch.equal(answers.predictions, chosen.argmax(-1))
    torch.testing.assert_close(answers.probabilities, chosen.softmax(-1))
    still_there = [int((exits >= k).sum()) for k in range(outputs.num_exits)]
    assert predictor.net.samples_run == still_there  # nothing was computed for those who left
    report = predictor.report()
    assert report.samples == outputs.num_samples
    assert report.mean_cost == pytest.approx(float(answers.costs.mean()))


@pytest.mark.parametrize("make", [m for m in ALL if m is not Random])
@pytest.mark.parametrize("size", [1, 7])
def test_a_decision_does_not_depend_on_the_rest_of_the_batch(make, size):
    policy, outputs = fitted(make(), make_outputs(seed=0)), make_outputs(seed=1, samples=60)
    predictor = replay(policy, outputs)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    found = [predictor.predict(part).exits for part in order.split(size)]
    assert torch.equal(torch.cat(found), policy.at(5.0).decide(outputs.evidence())[order])


@pytest.mark.parametrize("make", [m for m in ALL if m is not Random])
def test_one_sample_alone_is_decided_as_offline_at_and_beside_its_own_score(make):
    policy, outputs = fitted(make(), make_outputs(seed=0)), make_outputs(seed=1, samples=60)
    logits = outputs.logits.clone()
    logits[:, :40] *= torch.logspace(-2, 2.5, 40)[:, None]
    logits[:, 40] = 0.0  # no class is predicted
    logits[1, 41, 0] = logits[1, 41].max()  # two are
    logits[0, 42, 1] = -torch.inf
    scorer = policy.at(5.0).scorer
    chain, plain = decisions(scorer, 3), 0
    for sample in logits.split(1, 1):
        scores = score_exits(scorer, Evidence.from_logits(sample))
        up, down = (scores.nextafter(torch.tensor(end)) for end in (torch.inf, -torch.inf))
        for thresholds in (scores, up, down, scores + 0.1, scores - 0.1):
            alone = SingleSample(chain, thresholds[:, 0].tolist())
            found = next((k for k in range(2) if not alone.stays(sample[k])), 2)
            assert found == int(first_exit(scores, thresholds[:, 0]))
            plain += alone.asked == 0
    assert plain > 90 or chain[0].single is None


@pytest.mark.parametrize("make", ALL)
def test_an_empty_batch_has_an_empty_answer(make):
    policy, outputs = fitted(make(), make_outputs(seed=0)), make_outputs(seed=1, samples=60)
    predictor = replay(policy, outputs)
    empty = torch.arange(0)
    for answers in (predictor.predict(empty), *predictor.predict_stream([empty])):
        assert [list(field.shape) for field in answers] == [[0], [0, 5], [0], [0]]
    batches = [empty, torch.arange(40), empty, torch.arange(40, 60), empty]
    answers = list(predictor.predict_stream(batches, 16))
    assert [len(several.exits) for several in answers] == [0, 40, 0, 20, 0]
    expected = policy.at(5.0).decide(outputs.evidence())
    if make is not Random:
        assert torch.equal(torch.cat([several.exits for several in answers]), expected)
    assert predictor.report().samples == 60


@pytest.mark.parametrize("make", ALL)
def test_a_predictor_can_be_pickled(make):
    policy, outputs = fitted(make(), make_outputs(seed=0)), make_outputs(seed=1, samples=60)
    predictor = replay(policy, outputs)
    everything = torch.arange(60)
    expected = predictor.predict(everything)
    copy = pickle.loads(pickle.dumps(predictor))
    assert copy.report() == predictor.report()
    for field, other in zip(copy.predict(everything), expected, strict=True):
        assert torch.equal(field, other)


def test_the_budget_changes_between_calls_and_fractions_are_of_the_full_cost():
    policy, outputs = MaxProbability().fit(make_outputs(seed=0)), make_outputs(seed=1)
    predictor = replay(policy, outputs, 0.5, budget_unit="fraction")
    everything = torch.arange(outputs.num_samples)
    for budget in (0.3, 0.8, 0.3):
        predictor.budget = budget
        answers = predictor.predict(everything)
        expected = policy.at(10.0 * budget).decide(outputs.evidence())
        assert torch.equal(answers.exits, expected)
        assert float(answers.costs.mean()) == pytest.approx(budget, abs=0.06)
    assert predictor.report().samples == outputs.num_samples  # since the last change


def resnet():
    torch.manual_seed(0)
    return CifarResNet(depth=14, exits=[1, 3, 6], in_channels=1, widths=(4, 8, 16)).eval()


def msdnet():
    torch.manual_seed(0)
    return MSDNet(
        base=2, step=1, num_exits=3, channels=8, growth_rate=4, num_classes=10, in_channels=1
    ).eval()


@pytest.mark.parametrize("make", [resnet, msdnet])
@pytest.mark.parametrize("size", [1, 16, 64])
def test_end_to_end_only_scores_at_their_threshold_may_differ(make, size):
    net, x = make(), torch.randn(64, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        logits = net(x).clone()
    policy = MaxProbability().fit(ExitOutputs(costs=torch.tensor([1.0, 2.0, 3.0]), logits=logits))
    rule = policy.at(2.0)
    predictor = AdaptivePredictor(net, policy, 2.0, budget_unit="cost")
    found = torch.cat([predictor.predict(part).exits for part in x.split(size)])
    evidence = Evidence.from_logits(logits)
    gaps = (-evidence.one_minus_max - rule.thresholds[:, None]).abs().min(0).values
    different = found != rule.decide(evidence)
    assert (gaps[different] < 1e-5).all()
    assert int(different.sum()) <= 1


def test_folded_batch_norms_leave_the_answers_as_they_are():
    net, x = resnet().train(), torch.randn(32, 1, 16, 16)
    net(x), net.eval()  # running statistics of their own
    with torch.inference_mode():
        expected, found = net(x), fold(net)(x)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in net.modules())


@pytest.mark.slow
def test_compiled_stages_take_batches_that_shrink():
    outputs, x = make_outputs(seed=1, samples=40), torch.randn(40, 1, 16, 16)
    with torch.inference_mode():
        logits = resnet()(x).clone()
    policy = MaxProbability().fit(ExitOutputs(outputs.costs, logits))
    expected = AdaptivePredictor(resnet(), policy, 5.0, "cost").predict(x)
    net = resnet()
    with torch._dynamo.config.patch(recompile_limit=64, fail_on_recompile_limit_hit=True):
        for module in (*net.stages, *net.heads):
            module.compile(dynamic=True, backend="eager")
        predictor = AdaptivePredictor(net, policy, 5.0, "cost")
        for size in (40, 7, 1):
            found = torch.cat([predictor.predict(part).exits for part in x.split(size)])
            assert torch.equal(found, expected.exits)


def encoder():
    pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = {"model_type": "bert", "num_hidden_layers": 3, "vocab_size": 50, "hidden_size": 32}
    config |= {"num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 40}
    return TransformerEncoder(config=config, exits=[1, 2, 3], num_classes=4).eval()


def sentences(samples=24):
    generator = torch.Generator().manual_seed(6)
    lengths = torch.randint(3, 33, (samples,), generator=generator)
    mask = (torch.arange(32) < lengths[:, None]).long()
    ids = torch.randint(1, 50, (samples, 32), generator=generator) * mask
    return {"input_ids": ids, "attention_mask": mask}, lengths


class Widths(nn.Module):
    """Notes how many tokens wide each batch is that a stage gets."""

    def __init__(self, stage):
        super().__init__()
        self.stage, self.widths = stage, []

    def forward(self, state):
        self.widths.append(state[0].shape[1])
        return self.stage(state)


def test_padding_is_trimmed_as_long_sentences_leave():
    net, (batch, lengths) = encoder(), sentences()
    with torch.inference_mode():
        logits = net(batch).clone()
    policy = MaxProbability().fit(ExitOutputs(costs=torch.tensor([1.0, 2.0, 3.0]), logits=logits))
    net.stages[1] = Widths(net.stages[1])
    predictor = AdaptivePredictor(net, policy, 1.2, budget_unit="cost")
    answers = predictor.predict(batch)
    expected = policy.at(1.2).decide(Evidence.from_logits(logits))
    assert torch.equal(answers.exits, expected)
    chosen = logits[expected, torch.arange(len(expected))]
    torch.testing.assert_close(answers.probabilities, chosen.softmax(-1), atol=1e-5, rtol=1e-4)
    assert net.stages[1].widths == [int(lengths[expected > 0].max())]
    assert net.stages[1].widths[0] < 32


def test_images_with_a_class_for_every_pixel():
    torch.manual_seed(0)
    stages = [nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)]
    net = MultiExitNetwork(stages, [nn.Conv2d(8, 5, 1), nn.Conv2d(8, 5, 1)], 5).eval()
    x = torch.randn(12, 3, 6, 7)
    with torch.inference_mode():
        logits = net(x).clone()
    probs = logits.softmax(2)
    top = probs.topk(2, dim=2).values
    entropy = -(probs * probs.log()).sum(2) / torch.tensor(5.0).log()
    means = [1 - top[:, :, 0], entropy, 1 - top[:, :, 0] + top[:, :, 1]]
    pooled = torch.cat([probs.mean((3, 4)), torch.stack([m.mean((2, 3)) for m in means], -1)], -1)
    policy = Margin().fit(ExitOutputs(costs=torch.tensor([1.0, 3.0]), pooled=pooled))
    predictor = AdaptivePredictor(net, policy, 2.0, budget_unit="cost")
    answers = predictor.predict(x)
    expected = policy.at(2.0).decide(Evidence.from_pooled(pooled))
    assert torch.equal(answers.exits, expected)
    assert expected.float().mean() == 0.5
    assert torch.equal(answers.predictions, logits.argmax(2)[expected, torch.arange(12)])
    before = policy.calibration_scores.clone()
    predictor.recalibrate([x[:6], x[6:]])
    torch.testing.assert_close(policy.calibration_scores, before)


@pytest.mark.parametrize(
    ("x", "kind"),
    [
        (["a text", "another"], "str"),
        (np.zeros((2, 1)), "ndarray"),
        ([], "nothing"),
        ([1, 2], "int"),
    ],
)
def test_inputs_that_are_not_tensors_are_refused(x, kind):
    predictor = replay(MaxProbability().fit(make_outputs()), make_outputs())
    for ask in (predictor.predict, lambda x: next(predictor.predict_stream([x]))):
        with pytest.raises(TypeError, match=f"x: the network takes tensors, not {kind}; encode"):
            ask(x)


def test_bad_settings_are_named():
    outputs = make_outputs()
    policy = MaxProbability().fit(outputs)
    with pytest.raises(TypeError, match="net is a Linear, not a MultiExitNetwork"):
        AdaptivePredictor(nn.Linear(1, 1), policy)
    with pytest.raises(ValueError, match="policy: max_prob was not fitted yet"):
        replay(MaxProbability(), outputs)
    for device in ("cuda:77", "nowhere"):
        with pytest.raises(ValueError, match=f"device='{device}' cannot be used here: "):
            Runtime(replay(policy, outputs).net, outputs.costs, device)
    predictor = replay(policy, outputs)
    with pytest.raises(TypeError, match=r"budget='0\.35' is not a number"):
        predictor.budget = "0.35"
    with pytest.raises(TypeError, match="budget=True is not a number"):
        predictor.budget = True
    with pytest.raises(ValueError, match="budget=nan"):
        predictor.budget = float("nan")
    assert predictor.report().budget == 5.0
    with pytest.raises(ValueError, match="measure needs at least one sample"):
        predictor.measure(torch.arange(0))
