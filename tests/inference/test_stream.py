"""Throughput mode: the same answers, in order, from full batches, within bounds."""

import pytest
import torch
from tests.conftest import make_outputs
from tests.inference.test_predictor import Replay, encoder, replay, sentences
from torch.utils.data import DataLoader, TensorDataset

from eenet.inference import AdaptivePredictor
from eenet.inference.runtime import inputs_of
from eenet.outputs import ExitOutputs
from eenet.policies import EENetPlus, MaxProbability, Vote


class Recorder(Replay):
    """Notes how many samples each stage ran on at a time."""

    def step(self, k, state):
        self.runs = [*getattr(self, "runs", []), (k, len(state))]
        return super().step(k, state)


def recorded(policy, outputs, budget=5.0, **settings):
    return AdaptivePredictor(
        Recorder(outputs.logits), policy, budget, budget_unit="cost", **settings
    )


@pytest.mark.parametrize("make", [EENetPlus, MaxProbability, Vote])
@pytest.mark.parametrize(("size", "batch_size"), [(1, 16), (7, 16), (16, 16), (50, 16)])
def test_answers_are_those_of_predict_in_order(make, size, batch_size):
    policy, outputs = make().fit(make_outputs(seed=0)), make_outputs(seed=1)
    predictor = recorded(policy, outputs)
    batches = torch.arange(outputs.num_samples).split(size)
    found = list(predictor.predict_stream(batches, batch_size, max_wait=10**6))
    assert [len(answers.exits) for answers in found] == [len(batch) for batch in batches]
    whole = replay(policy, outputs).predict(torch.arange(outputs.num_samples))
    for several, one in zip(zip(*found, strict=True), whole, strict=True):
        assert torch.equal(torch.cat(several), one)
    for k in range(3):  # full batches, all but the last one of each stage
        runs = [samples for stage, samples in predictor.net.runs if stage == k]
        assert all(0.75 * batch_size <= samples <= batch_size for samples in runs[:-1])
        assert 1 <= runs[-1] <= batch_size
    assert predictor.report().samples == outputs.num_samples


def test_reading_ahead_is_bounded_by_max_wait():
    policy, outputs = MaxProbability().fit(make_outputs(seed=0)), make_outputs(seed=1)
    predictor = recorded(policy, outputs, 2.0)  # few go on, so late stages would wait long
    taken = 0

    def batches():
        nonlocal taken
        for batch in torch.arange(outputs.num_samples).split(10):
            taken += 1
            yield batch

    lags = []
    for given, _ in enumerate(predictor.predict_stream(batches(), 10, max_wait=4), 1):
        lags.append(taken - given)
    assert max(lags) == 4
    unbounded = list(predictor.predict_stream(batches(), 10, max_wait=10**6))
    assert len(unbounded) == len(lags)


def test_waiting_is_bounded_in_milliseconds():
    policy, outputs = MaxProbability().fit(make_outputs(seed=0)), make_outputs(seed=1)
    stream = recorded(policy, outputs).predict_stream(
        torch.arange(400).split(10), batch_size=10**6, max_wait_ms=0.0
    )
    consumed = [next(stream) for _ in range(40)]
    assert len(consumed) == 40


def test_text_of_different_lengths_is_padded_where_batches_meet():
    net, (batch, lengths) = encoder(), sentences()
    with torch.inference_mode():
        logits = net(batch).clone()
    policy = MaxProbability().fit(ExitOutputs(costs=torch.tensor([1.0, 2.0, 3.0]), logits=logits))
    predictor = AdaptivePredictor(net, policy, 2.0, budget_unit="cost")
    expected = predictor.predict(batch)
    parts = []
    for rows in torch.arange(24).split(4):
        longest = int(lengths[rows].max())
        parts.append({name: value[rows, :longest] for name, value in batch.items()})
    found = list(predictor.predict_stream(parts, batch_size=10))
    assert torch.equal(torch.cat([a.exits for a in found]), expected.exits)
    probabilities = torch.cat([a.probabilities for a in found])
    torch.testing.assert_close(probabilities, expected.probabilities, atol=1e-5, rtol=1e-4)
    parts[0].pop("attention_mask")  # then all of it counts
    with torch.inference_mode():
        assert len(list(predictor.predict_stream(parts, batch_size=10))) == 6


def test_labels_of_a_loader_are_left_aside():
    policy, outputs = MaxProbability().fit(make_outputs(seed=0)), make_outputs(seed=1)
    predictor = recorded(policy, outputs)
    loader = DataLoader(TensorDataset(torch.arange(400), outputs.labels), batch_size=50)
    exits = torch.cat([answers.exits for answers in predictor.predict_stream(loader, 50)])
    assert torch.equal(exits, policy.at(5.0).decide(outputs.evidence()))
    labelled = [predictor.predict(batch).exits for batch in loader]
    assert torch.equal(torch.cat(labelled), exits)
    pair = (torch.ones(3, 2), torch.zeros(3, 2))  # an input of two tensors is no input with labels
    assert inputs_of(pair) is pair


def test_bad_settings_are_named():
    outputs = make_outputs()
    predictor = replay(MaxProbability().fit(outputs), outputs)
    with pytest.raises(ValueError, match="batch_size=0 must be at least 1"):
        next(predictor.predict_stream([], batch_size=0))
