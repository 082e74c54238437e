"""The predictor watches its traffic, and certifies on it."""

import pytest
import torch
from tests.conftest import make_outputs
from tests.inference.test_predictor import replay

from eenet.outputs import ExitOutputs
from eenet.policies import EENetPlus, within_disagreement


def drifting(outputs, start):
    """The outputs with logits that shrink from a sample on."""
    shrunk = outputs.logits.clone()
    shrunk[:, start:] *= 0.4
    return ExitOutputs(outputs.costs, shrunk)


@pytest.fixture(scope="module")
def policy():
    return EENetPlus().fit(make_outputs(seed=0))


@pytest.mark.parametrize("control", [None, 0.01])
def test_it_rings_after_a_drift_and_says_what_to_do(policy, control):
    predictor = replay(policy, drifting(make_outputs(samples=3000, seed=1), 1500), control=control)
    predictor.watch(0.01, make_outputs(samples=1000, seed=2))
    for part in torch.arange(1500).split(7):
        predictor.predict(part)
    report = predictor.report()
    assert report.drift > 0.01
    assert report.alarm is None
    with pytest.warns(UserWarning, match="no longer like the reference") as warned:
        list(predictor.predict_stream(torch.arange(1500, 3000).split(32)))
    assert len(warned) == 1
    assert "Recalibrate" in predictor.report().alarm
    predictor.recalibrate([torch.arange(1500, 2000)])  # what came last is the reference now
    for part in torch.arange(2000, 3000).split(50):
        predictor.predict(part)
    assert predictor.report().alarm is None


def test_streams_and_deadlines_show_the_alarm_the_same(policy):
    outputs = make_outputs(samples=640, seed=1)
    seen = []
    for way in ("batches", "stream"):
        predictor = replay(policy, outputs)
        predictor.watch(0.01)
        parts = torch.arange(640).split(64)
        for part in parts if way == "batches" else ():
            predictor.predict(part)
        list(predictor.predict_stream(parts if way == "stream" else (), 64, max_wait=1))
        seen.append(predictor.report().drift)
    assert seen[0] == seen[1]
    assert replay(policy, outputs).report().drift is None


def test_a_promise_on_unlabeled_traffic(policy):
    outputs = make_outputs(samples=1000, seed=1)
    predictor = replay(policy, outputs)
    traffic = predictor.collect(torch.arange(1000).split(100))
    assert torch.equal(traffic.logits, outputs.logits)
    assert traffic.labels is None
    rules = [policy.at_fraction(share / 10) for share in range(1, 11)]
    kept = within_disagreement(rules, traffic, 0.1, 0.1)
    predictor.serve(kept.rule)
    answers = predictor.predict(torch.arange(1000))
    differs = (answers.predictions != outputs.logits[-1].argmax(1)).double().mean()
    assert float(differs) == pytest.approx(0.1 - kept.margin)
