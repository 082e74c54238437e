"""Budgets under control: in batches and streams, against spite, drift and interruption."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conftest import make_outputs
from tests.inference.test_predictor import Replay, replay

from eenet.inference import AdaptivePredictor
from eenet.outputs import ExitOutputs
from eenet.policies import EENetPlus, MaxProbability


@pytest.fixture(scope="module")
def policy():
    return EENetPlus().fit(make_outputs(seed=0, samples=1000))


class Spite(Replay):
    """A network that is sure of itself while the working point is high, or while it is low."""

    def step(self, k, state):
        point = self.predictor.control.u
        sure = (point > self.level) == self.generous
        logits = 8.0 * torch.eye(5)[state % 5] if sure else torch.zeros(len(state), 5)
        return logits + 1e-3 * self.logits[k][state], state


@settings(max_examples=25)
@given(
    budget=st.floats(1.0, 10.0),
    step=st.sampled_from([1.0, 0.1, 0.01]),
    size=st.integers(1, 90),
    batch_size=st.integers(1, 90),
    max_wait=st.integers(1, 20),
    level=st.floats(-0.2, 1.2),
    generous=st.booleans(),
)
def test_the_bound_holds_against_spite(
    policy, budget, step, size, batch_size, max_wait, level, generous
):
    net = Spite(make_outputs(samples=500).logits)
    predictor = AdaptivePredictor(net, policy, budget, "cost", control=step)
    net.predictor, net.level, net.generous = predictor, level, generous
    batches = torch.arange(500).split(size)
    half = len(batches) // 2
    for batch in batches[:half]:
        predictor.predict(batch)
        report = predictor.report()
        assert abs(report.mean_cost - budget) <= report.bound + 1e-9
    for _ in predictor.predict_stream(batches[half:], batch_size, max_wait):
        report = predictor.report()
        assert abs(report.mean_cost - budget) <= report.bound + 1e-9
    report = predictor.report()
    assert report.samples == 500
    assert abs(report.mean_cost - budget) <= report.bound + 1e-9


SETTINGS = [("predict", 1, 0), ("predict", 64, 0), ("predict", 256, 0)]
SETTINGS += [("stream", 64, 64), ("stream", 64, 256), ("stream", 256, 256)]


def run(predictor, samples, mode, size, batch_size):
    batches = torch.arange(samples).split(size)
    if mode == "predict":
        return torch.cat([predictor.predict(batch).exits for batch in batches])
    return torch.cat([a.exits for a in predictor.predict_stream(batches, batch_size)])


@pytest.mark.parametrize("setting", SETTINGS)
def test_where_nothing_drifts_control_costs_nothing(policy, setting):
    outputs = make_outputs(seed=3, samples=3000 if setting[1] == 1 else 12_000)
    quality = outputs.answer_quality()
    reached = {}
    for control in (None, 0.01):
        predictor = replay(policy, outputs, 5.0, control=control)
        exits = run(predictor, outputs.num_samples, *setting)
        reached[control] = float(quality.gather(0, exits[None]).mean())
    assert predictor.report().mean_cost == pytest.approx(5.0, rel=0.01)
    assert abs(predictor.report().mean_cost - 5.0) < predictor.report().bound
    assert reached[0.01] > reached[None] - 0.005


@pytest.mark.parametrize("setting", SETTINGS[1:])
def test_drift_is_followed_without_swings(policy, setting):
    outputs = make_outputs(seed=4, samples=12_000)
    outputs = ExitOutputs(outputs.costs, 0.3 * outputs.logits, labels=outputs.labels)
    predictor = replay(policy, outputs, 5.0)
    run(predictor, 12_000, *setting)
    assert predictor.report().mean_cost > 7.0
    predictor = replay(policy, outputs, 5.0, control=0.01)
    exits = run(predictor, 12_000, *setting)
    assert predictor.report().mean_cost == pytest.approx(5.0, rel=0.03)
    settled = outputs.costs[exits[6_000:]].unfold(0, 500, 500).mean(1)  # once it is
    assert float((settled - 5.0).abs().max()) < 0.8


def test_a_stream_given_up_and_a_new_budget_amid_a_stream(policy):
    outputs = make_outputs(seed=5, samples=4000)
    predictor = replay(policy, outputs, 5.0, control=0.05)
    batches = torch.arange(2000).split(10)
    stream = predictor.predict_stream(batches, 64)
    for _ in range(50):
        next(stream)
    under_way = sum(predictor.control.waiting)
    assert under_way > 0
    stream.close()
    assert sum(predictor.control.waiting) == 0
    assert predictor.control.forced == under_way
    stream = predictor.predict_stream(batches, 64)
    for _ in range(50):
        next(stream)
    predictor.budget = 3.0
    assert sum(predictor.control.waiting) > 0
    for _ in stream:
        report = predictor.report()
        assert abs(report.mean_cost - 3.0) <= report.bound
    assert sum(predictor.control.waiting) == predictor.control.forced == 0
    assert predictor.report().mean_cost == pytest.approx(3.0, rel=0.03)


def test_inputs_that_are_not_numbers_leave_first_when_the_budget_is_spent(policy):
    outputs = make_outputs(seed=6)
    outputs.logits[:, ::2] = torch.nan
    predictor = replay(policy, outputs, 2.0, control=0.1)
    for _ in range(5):
        for batch in torch.arange(400).split(20):
            predictor.predict(batch)
    assert predictor.report().mean_cost == pytest.approx(2.0, abs=predictor.report().bound)
    assert predictor.report().mean_cost == pytest.approx(2.0, rel=0.05)


def test_control_is_for_nested_rules_only():
    outputs = make_outputs()
    with pytest.raises(ValueError, match="control: it needs the nested rules of eenet"):
        replay(MaxProbability().fit(outputs), outputs, control=0.01)
