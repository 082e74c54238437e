"""Exits in networks that others wrote: from their constructor to a curve and a prediction."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from tests.models.networks import run_steps
from torch import Tensor, nn

from eenet.inference import AdaptivePredictor
from eenet.models import Backbone
from eenet.models.costs import count_macs
from eenet.outputs import ExitOutputs
from eenet.policies import MaxProbability

timm = pytest.importorskip("timm")
transformers = pytest.importorskip("transformers")


def hugging_face() -> nn.Module:
    sizes: dict[str, Any] = {"hidden_sizes": [8, 16, 16, 16], "depths": [1, 1, 1, 1]}
    config = transformers.AutoConfig.for_model("convnext", num_labels=5, **sizes)
    model: nn.Module = transformers.AutoModelForImageClassification.from_config(config)
    return model


def swin_of_hugging_face() -> nn.Module:
    sizes: dict[str, Any] = {
        "image_size": 32,
        "embed_dim": 8,
        "depths": [2, 2],
        "num_heads": [2, 2],
    }
    sizes |= {"window_size": 4, "patch_size": 2}
    config = transformers.AutoConfig.for_model("swin", num_labels=5, **sizes)
    model: nn.Module = transformers.AutoModelForImageClassification.from_config(config)
    return model


def vit_of_hugging_face() -> nn.Module:
    sizes: dict[str, Any] = {"image_size": 32, "hidden_size": 16, "intermediate_size": 16}
    sizes |= {"num_hidden_layers": 3, "num_attention_heads": 2}
    config = transformers.AutoConfig.for_model("vit", num_labels=5, **sizes)
    model: nn.Module = transformers.AutoModelForImageClassification.from_config(config)
    return model


def sequential() -> nn.Module:
    flat = (nn.Flatten(), nn.Linear(3 * 32 * 32, 16), nn.ReLU())
    more = (nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU())
    return nn.Sequential(*flat, *more, nn.Linear(8, 5))


def of_timm(name: str, **options: Any) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, num_classes=5, **options)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], list[str], str]] = {
    "timm-convnet": (of_timm("efficientnet_lite0"), ["blocks.1", "blocks.3.0"], "BatchNorm2d"),
    "timm-vit": (
        of_timm("vit_tiny_patch16_224", img_size=32, depth=3, embed_dim=24, num_heads=2),
        ["blocks.0", "blocks.1"],
        "_Token",
    ),
    "timm-rope": (
        of_timm("eva02_tiny_patch14_224", img_size=28, depth=3, embed_dim=48, num_heads=2),
        ["blocks.0", "blocks.1"],
        "_Token",
    ),
    "timm-swin": (
        of_timm("swin_tiny_patch4_window7_224", img_size=32, embed_dim=24, depths=(1, 1)),
        ["layers.0"],
        "Permute",
    ),
    "hf-convnext": (hugging_face, ["convnext.encoder.stages.0"], "BatchNorm2d"),
    "hf-swin": (swin_of_hugging_face, ["swin.encoder.layers.0.blocks.0"], "_Token"),
    "hf-vit": (vit_of_hugging_face, ["vit.layers.0", "vit.layers.1"], "_Token"),
    "torchvision": (
        lambda: torchvision.models.shufflenet_v2_x0_5(num_classes=5),
        ["maxpool", "stage2", "stage3.1"],
        "BatchNorm2d",
    ),
    "sequential": (sequential, ["2", "4"], "LayerNorm"),
}


@torch.no_grad()
def logits_of(model: nn.Module, x: Tensor) -> Tensor:
    result = model.eval()(x)
    logits: Tensor = getattr(result, "logits", result)
    return logits


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_from_a_constructor_to_a_curve_and_a_prediction(name: str) -> None:
    torch.manual_seed(0)
    make, exits, head = NETWORKS[name]
    model = make()
    x = torch.randn(8, 3, *((28, 28) if name == "timm-rope" else (32, 32)))
    expected = logits_of(model, x)

    net = Backbone(model, exits, input_size=x.shape[1:]).eval()
    assert (net.num_exits, net.num_classes) == (len(exits) + 1, 5)
    assert type(net.heads[0][0]).__name__ == head
    with torch.no_grad():
        logits = net(x)
    torch.testing.assert_close(logits[-1], expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(run_steps(net, x), logits, rtol=0, atol=1e-5)
    keep = torch.tensor([5, 0])
    torch.testing.assert_close(run_steps(net, x, keep), logits[:, keep], rtol=1e-4, atol=1e-5)

    macs = count_macs(net, x)
    assert macs == sorted(set(macs))
    outputs = ExitOutputs(torch.tensor(macs), logits, labels=torch.arange(8) % 5)
    policy = MaxProbability().fit(outputs)
    budgets = [0.5 * (macs[0] / macs[-1] + 1), 1.0]
    assert len([policy.at_fraction(budget).decide(outputs.evidence()) for budget in budgets]) == 2
    answer = AdaptivePredictor(net, policy, budgets[0]).predict(x)
    rows = torch.arange(8)
    probabilities = logits.softmax(-1)[answer.exits, rows]
    torch.testing.assert_close(answer.probabilities, probabilities, rtol=1e-4, atol=1e-5)

    net.train()
    net(x).square().sum().backward()
    assert all(p.grad is not None for p in net.heads.parameters())
