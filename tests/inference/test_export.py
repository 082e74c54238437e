"""Exported graphs give the answers of the runtime, for any batch size."""

import pytest
import torch

from eenet.inference import AdaptivePredictor
from eenet.inference.export import OnnxPredictor, export
from eenet.models import CifarResNet
from eenet.outputs import ExitOutputs
from eenet.policies import EENetPlus, MaxProbability

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


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
    stage = torch.export.load(tmp_path / "stage_1.pt2").module()
    torch.testing.assert_close(stage(x)[0], logits[0], atol=1e-5, rtol=1e-4)
