"""Exported graphs give the answers of the runtime, for any batch size."""

import json

import pytest
import torch
from torch import nn

from eenet.inference import AdaptivePredictor
from eenet.inference.export import OnnxPredictor, export
from eenet.models import CifarResNet, MultiExitNetwork, narrow
from eenet.outputs import ExitOutputs
from eenet.policies import EENetPlus, MaxProbability, Random

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def check_single(predictor, x, folder):
    """One graph for one sample: the answers of the runtime, and no stage behind the exit taken."""
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(folder / "single.onnx")
    assert [node.name for node in session.get_outputs()] == ["logits", "exit"]
    expected = predictor.predict(x)
    for n in range(len(expected.exits)):
        own = narrow(x, torch.tensor([n]))
        own = own if isinstance(own, dict) else {"x": own}
        logits, exit_ = session.run(None, {name: t.numpy() for name, t in own.items()})
        assert exit_.tolist() == [int(expected.exits[n])]
        probabilities = torch.from_numpy(logits).softmax(1)
        torch.testing.assert_close(
            probabilities, expected.probabilities[n : n + 1], atol=1e-5, rtol=1e-4
        )
    nodes = onnx.load(folder / "single.onnx").graph.node
    assert [node.op_type for node in nodes].count("If") == 1
    convolutions = [node.op_type for node in nodes].count("Conv")
    everywhere = onnx.load(folder / "stage_1.onnx").graph.node
    assert convolutions == [node.op_type for node in everywhere].count("Conv")


@pytest.mark.slow
@pytest.mark.parametrize("make", [MaxProbability, EENetPlus])
def test_onnxruntime_answers_as_the_runtime_does(make, tmp_path):
    torch.manual_seed(0)
    net = CifarResNet(depth=8, exits=[1, 3], in_channels=1, widths=(4, 8, 16)).eval()
    x = torch.randn(64, 1, 8, 8)
    with torch.inference_mode():
        logits = net(x).clone()
    labels = torch.arange(64) % 10
    policy = make().fit(ExitOutputs(torch.tensor([1.0, 3.0]), logits, labels=labels))
    predictor = AdaptivePredictor(net, policy, 2.0, "cost")
    export(predictor, x[:3], tmp_path)
    there = OnnxPredictor(tmp_path)
    for batch in (x, x[:1], x[5:12]):
        answers, exits = there.predict(batch.numpy())
        expected = predictor.predict(batch)
        assert torch.equal(torch.from_numpy(exits), expected.exits)
        probabilities = torch.from_numpy(answers).softmax(1)
        torch.testing.assert_close(probabilities, expected.probabilities, atol=1e-5, rtol=1e-4)
    assert len(predictor.predict(x).exits.unique()) == 2
    check_single(predictor, x, tmp_path)
    stage = torch.export.load(tmp_path / "stage_1.pt2").module()
    torch.testing.assert_close(stage(x)[0], logits[0], atol=1e-5, rtol=1e-4)


class Weighted(MultiExitNetwork):
    """Turns a dict of two tensors into one before the first stage."""

    def __init__(self):
        heads = [nn.Sequential(nn.Flatten(), nn.Linear(48, 4)) for _ in range(2)]
        super().__init__([nn.Identity(), nn.Conv2d(3, 3, 1)], heads, 4)

    def begin(self, x):
        return x["image"] * x["weight"][:, None, None, None]


def weighted(policy, budget):
    torch.manual_seed(0)
    net, x = Weighted().eval(), {"weight": torch.rand(64), "image": torch.randn(64, 3, 4, 4)}
    with torch.inference_mode():
        logits = net(x).clone()
    outputs = ExitOutputs(torch.tensor([1.0, 3.0]), logits, labels=torch.arange(64) % 4)
    return AdaptivePredictor(net, policy.fit(outputs), budget, "cost"), x


@pytest.mark.slow
def test_what_begin_does_is_exported_too(tmp_path):
    predictor, x = weighted(MaxProbability(), 2.0)
    export(predictor, x, tmp_path)
    answers, exits = OnnxPredictor(tmp_path).predict({name: t.numpy() for name, t in x.items()})
    expected = predictor.predict(x)
    assert torch.equal(torch.from_numpy(exits), expected.exits)
    assert len(expected.exits.unique()) == 2
    probabilities = torch.from_numpy(answers).softmax(1)
    torch.testing.assert_close(probabilities, expected.probabilities, atol=1e-5, rtol=1e-4)
    for budget, leaves_at in ((1.0, 0), (3.0, 1)):  # thresholds are infinite there
        predictor.budget = budget
        export(predictor, x, tmp_path)
        text = (tmp_path / "runtime.json").read_text()
        assert "Infinity" not in text
        assert len(json.loads(text)["thresholds"]) == 1
        _, exits = OnnxPredictor(tmp_path).predict({name: t.numpy() for name, t in x.items()})
        assert set(exits.tolist()) == {leaves_at}
        check_single(predictor, x, tmp_path)


def test_what_cannot_be_exported_is_refused_and_nothing_is_left(tmp_path):
    predictor, x = weighted(MaxProbability(), 2.0)
    with pytest.raises(ValueError, match="give two samples or more to export by, not 1"):
        export(predictor, {name: t[:1] for name, t in x.items()}, tmp_path / "one")
    predictor, x = weighted(Random(), 2.0)
    with pytest.raises(ValueError, match="exit_1 cannot be exported by torch: "):
        export(predictor, x, tmp_path / "chance")
    assert list(tmp_path.iterdir()) == []
