"""Deadlines, recalibration and rules of one's own while the runtime runs."""

from dataclasses import replace

import pytest
import torch
from tests.conftest import make_outputs
from tests.inference.test_predictor import replay
from tests.policies.contract import fitted

from eenet.outputs import ExitOutputs
from eenet.policies import EENet, EENetPlus, Entropy, MaxProbability, within_budget


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


def test_recalibration_on_unlabelled_traffic_meets_the_budget_there():
    harder = make_outputs(seed=1)
    harder = ExitOutputs(costs=harder.costs, logits=0.5 * harder.logits)
    predictor = replay(Entropy().fit(make_outputs(seed=0)), harder, 5.0)
    everything = torch.arange(harder.num_samples)
    assert float(predictor.predict(everything).costs.mean()) != pytest.approx(5.0, abs=0.1)
    with pytest.raises(ValueError, match="there is no sample in them"):
        predictor.recalibrate([])
    batches = [*everything.split(100), everything[:0]]
    predictor.recalibrate([(x, x % 5) for x in batches])  # as loaders give them, with labels
    assert float(predictor.predict(everything).costs.mean()) == pytest.approx(5.0, abs=0.05)
    expected = predictor.policy.calibration_scores
    predictor.recalibrate(batches)
    assert torch.equal(predictor.policy.calibration_scores, expected)
    predictor.recalibrate(everything.split(100), budget=3.0)
    assert float(predictor.predict(everything).costs.mean()) == pytest.approx(3.0, abs=0.05)


def test_a_promised_rule_is_served():
    policy, cal, outputs = (EENetPlus(), *(make_outputs(seed=k, samples=2000) for k in (1, 2)))
    policy.fit(make_outputs(seed=0))
    promised = within_budget([policy.at(b) for b in (3.0, 4.0, 5.0, 6.0)], cal, 5.5, 0.1)
    predictor = replay(policy, outputs, 0.9, control=0.01, budget_unit="fraction")
    everything = torch.arange(2000)
    predictor.serve(promised.rule)
    for part in everything.split(500):  # nothing moves it
        exits = predictor.predict(part).exits
        assert torch.equal(exits, promised.rule.decide(outputs.select(part).evidence()))
    report = predictor.report()
    assert (report.samples, report.point, report.bound) == (2000, None, None)
    assert report.budget == pytest.approx(promised.rule.cost / 10)
    assert report.mean_cost < 0.55
    predictor.budget = 0.9
    assert predictor.report().point == pytest.approx((9.0 - 1.0) / 9.0)
    with pytest.raises(ValueError, match="the rule was fitted on 4 exits"):
        predictor.serve(MaxProbability().fit(make_outputs(exits=4)).at(5.0))


def test_refitting_on_unlabelled_traffic_learns_the_policy_anew():
    traffic = make_outputs(seed=1)
    predictor = replay(EENetPlus().fit(make_outputs(seed=0)), traffic, 5.0)
    everything = torch.arange(traffic.num_samples)
    predictor.refit([(x, x % 5) for x in everything.split(100)])
    expected = EENetPlus().fit(replace(traffic, labels=None)).at(5.0)
    assert torch.equal(predictor.predict(everything).exits, expected.decide(traffic.evidence()))
    predictor.refit([everything], 3.0, cost_matrix=torch.arange(25.0).view(5, 5))
    assert not torch.equal(predictor.policy.weight, expected.scorer.weight)
    assert predictor.rule.cost == pytest.approx(3.0, abs=0.05)
    with pytest.raises(ValueError, match="is fitted for given budgets"):
        replay(fitted(EENet(), traffic), traffic, 3.0).refit([everything])
    with pytest.raises(ValueError, match="only 3 samples to fit on"):
        predictor.refit([everything[:3]])
