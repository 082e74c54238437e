"""Deadlines, budget control and recalibration while the runtime runs."""

import pytest
import torch
from tests.conftest import make_outputs
from tests.inference.test_predictor import replay

from eenet.outputs import ExitOutputs
from eenet.policies import EENetPlus, Entropy, MaxProbability


def test_a_deadline_forces_the_answer_of_the_exit_reached(monkeypatch):
    outputs = make_outputs(seed=1)
    predictor = replay(MaxProbability().fit(make_outputs(seed=0)), outputs, 8.0)
    everything = torch.arange(outputs.num_samples)
    free = predictor.predict(everything).exits
    with pytest.raises(ValueError, match="call measure"):
        predictor.predict(everything, deadline_ms=5.0)
    predictor.measure(everything, batch_sizes=(1, 400), repeats=1)
    monkeypatch.setattr(type(predictor.profile), "step_ms", lambda self, k, samples: 1e3 * k)
    assert torch.equal(predictor.predict(everything, deadline_ms=1e6).exits, free)
    # The third stage would take 2 s, the second 1 s.
    assert torch.equal(predictor.predict(everything, deadline_ms=1.9e3).exits, free.clamp(max=1))
    assert predictor.predict(everything, deadline_ms=0.0).exits.max() == 0


def drifting(samples=3000):
    """Outputs that become harder half-way."""
    easy, hard = make_outputs(seed=1, samples=samples), make_outputs(seed=2, samples=samples)
    logits = torch.cat([easy.logits[:, : samples // 2], 0.4 * hard.logits[:, samples // 2 :]], 1)
    return ExitOutputs(costs=easy.costs, logits=logits)


@pytest.mark.parametrize("size", [1, 16])
def test_control_keeps_the_budget_while_the_data_drift(size):
    policy, outputs = EENetPlus().fit(make_outputs(seed=0)), drifting()
    costs = {}
    for control in (None, 0.02):
        predictor = replay(policy, outputs, 4.0, control=control)
        for part in torch.arange(outputs.num_samples).split(size):
            predictor.predict(part)
        costs[control] = predictor.report().mean_cost
    report = predictor.report()
    assert costs[None] > 4.4
    assert abs(costs[0.02] - 4.0) <= report.bound
    assert costs[0.02] == pytest.approx(4.0, abs=0.2)
    assert report.samples == outputs.num_samples
    assert sum(report.exit_shares) == pytest.approx(1)
    assert report.point < (4.0 - 1.0) / 9.0  # it had to spend less than it was set to


def test_control_is_for_nested_rules_only():
    outputs = make_outputs()
    with pytest.raises(ValueError, match="control: it needs the nested rules of eenet"):
        replay(MaxProbability().fit(outputs), outputs, control=0.01)
    with pytest.raises(ValueError, match="fitted on 0 exits"):
        replay(MaxProbability(), outputs)


def test_recalibration_on_unlabelled_traffic_meets_the_budget_there():
    harder = make_outputs(seed=1)
    harder = ExitOutputs(costs=harder.costs, logits=0.5 * harder.logits)
    predictor = replay(Entropy().fit(make_outputs(seed=0)), harder, 5.0)
    everything = torch.arange(harder.num_samples)
    assert float(predictor.predict(everything).costs.mean()) != pytest.approx(5.0, abs=0.1)
    predictor.recalibrate(everything.split(100))
    assert float(predictor.predict(everything).costs.mean()) == pytest.approx(5.0, abs=0.05)
    predictor.recalibrate(everything.split(100), budget=3.0)
    assert float(predictor.predict(everything).costs.mean()) == pytest.approx(3.0, abs=0.05)
