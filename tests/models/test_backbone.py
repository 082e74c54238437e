"""Exits in networks that others wrote: from their constructor to a curve and a prediction."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from tests.models.networks import run_steps
from torch import Tensor, nn

from eenet.inference import AdaptivePredictor
from eenet.inference.export import OnnxPredictor, export
from eenet.models import Backbone
from eenet.models.costs import count_macs
from eenet.outputs import ExitOutputs
from eenet.policies import MaxProbability

timm = pytest.importorskip("timm")
transformers = pytest.importorskip("transformers")


def hugging_face(kind: str, **sizes: Any) -> Callable[[], nn.Module]:
    config = transformers.AutoConfig.for_model(kind, num_labels=5, **sizes)
    make: Callable[[Any], nn.Module] = transformers.AutoModelForImageClassification.from_config
    return lambda: make(config)


SMALL_VIT = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 3}
SMALL_VIT |= {"num_attention_heads": 2, "image_size": 32}
SMALL_CONVNEXT = {"hidden_sizes": [8, 16, 16, 16], "depths": [1, 1, 1, 1]}
SMALL_SWIN = {"image_size": 32, "embed_dim": 8, "depths": [2, 2], "num_heads": [2, 2]}
SMALL_SWIN |= {"window_size": 4, "patch_size": 2}


def sequential() -> nn.Module:
    flat = (nn.Flatten(), nn.Linear(3 * 32 * 32, 16), nn.ReLU())
    more = (nn.Linear(16, 12), nn.ReLU(inplace=True), nn.Linear(12, 8), nn.ReLU())
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
    "hf-convnext": (
        hugging_face("convnext", **SMALL_CONVNEXT),
        ["convnext.encoder.stages.0"],
        "BatchNorm2d",
    ),
    "hf-swin": (hugging_face("swin", **SMALL_SWIN), ["swin.encoder.layers.0.blocks.0"], "_Token"),
    "hf-vit": (hugging_face("vit", **SMALL_VIT), ["vit.layers.0", "vit.layers.1"], "_Token"),
    "torchvision": (
        lambda: torchvision.models.shufflenet_v2_x0_5(num_classes=5),
        ["maxpool", "stage2", "stage3.1"],
        "BatchNorm2d",
    ),
    "sequential": (sequential, ["2", "3"], "LayerNorm"),
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


def test_a_folder_of_hugging_face_is_read_and_not_needed_again(tmp_path: Path) -> None:
    config = transformers.AutoConfig.for_model("vit", **SMALL_VIT, num_labels=4)
    theirs = transformers.AutoModelForImageClassification.from_config(config)
    theirs.save_pretrained(tmp_path)
    x = torch.randn(2, 3, 32, 32)
    arguments: dict[str, Any] = {"model": f"hf:{tmp_path}", "exits": ["vit.layers.0"]}
    net = Backbone(**arguments, weights="DEFAULT").eval()
    assert net.trained
    torch.testing.assert_close(net(x)[-1], logits_of(theirs, x), rtol=0, atol=1e-5)
    other = Backbone(**arguments, num_classes=3, weights="DEFAULT")
    assert (other.trained, other.trained_stages, other.num_classes) == (False, True, 3)
    assert not Backbone(**arguments).trained_stages
    shutil.rmtree(tmp_path)
    again = Backbone(**(arguments | net.restore_args)).eval()
    again.load_state_dict(net.state_dict(), strict=True)
    torch.testing.assert_close(again(x), net(x))


@pytest.mark.parametrize(
    ("model", "exits", "options"),
    [
        ("timm:vit_tiny_patch16_224", ["blocks.2"], {"img_size": 32, "depth": 4, "in_chans": 1}),
        ("torchvision.models.resnet18", ["layer1"], {"groups": 1}),
        ("hf:vit", ["vit.layers.1"], SMALL_VIT),
    ],
)
def test_a_name_is_enough(model: str, exits: list[str], options: dict[str, Any]) -> None:
    net = Backbone(model, exits, 4, options=options)
    channels = options.get("in_chans", 3)
    assert net(torch.randn(2, channels, 32, 32)).shape == (2, 2, 4)
    assert not net.trained


def renamed(model: nn.Module) -> dict[str, Tensor]:
    state = enumerate(model.state_dict().items())
    return {f"part{k}.{name.rpartition('.')[2]}": x for k, (name, x) in state}


def test_weights_under_other_names_are_taken_in_order(tmp_path: Path) -> None:
    theirs = timm.create_model("mobilenetv3_small_050", num_classes=5).eval()
    torch.save(renamed(theirs), tmp_path / "other.pt")
    arguments: dict[str, Any] = {"model": "timm:mobilenetv3_small_050", "exits": ["blocks.1"]}
    net = Backbone(**arguments, num_classes=5, weights=str(tmp_path / "other.pt")).eval()
    assert net.trained
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(net(x)[-1], theirs(x), rtol=0, atol=1e-5)
    net = Backbone(**arguments, num_classes=3, weights=str(tmp_path / "other.pt"))
    assert (net.trained, net.trained_stages) == (False, True)
    vit = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1)
    torch.save(renamed(vit), tmp_path / "vit.pt")
    arguments = {"options": {"img_size": 32, "depth": 1}, "weights": str(tmp_path / "vit.pt")}
    with pytest.raises(ValueError, match="holds another network"):
        Backbone("timm:vit_tiny_patch16_224", ["norm_pre"], **arguments)


def volumes() -> nn.Module:
    return nn.Sequential(nn.Conv3d(1, 2, 1), nn.Flatten(), nn.Linear(16, 2))


class Chooses(nn.Sequential):
    """Runs its modules only where values allow it."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.sum() > 0 else x  # type: ignore[no-any-return]


class Reshapes(nn.Module):
    """Needs the number of samples behind its second module."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[0]
        logits: Tensor = self.third(self.second(self.first(x)).reshape(size, 4))
        return logits


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Backbone(Chooses(nn.Linear(4, 4), nn.Linear(4, 2)), ["0"], input_size=[4]),
            r"Chooses.* cannot be traced .*modules .*\['0', '1'\].*MultiExitNetwork",
        ),
        (lambda: Backbone(Reshapes(), ["first"], input_size=[4]), "'getitem' bypasses 'first'"),
        (lambda: Backbone(sequential(), ["0"]), r"no sample of input_size=\[3, 224, 224\]"),
        (
            lambda: Backbone(volumes(), ["0"], input_size=[1, 2, 2, 2]),
            r"no head is known for features \[2, 2, 2, 2\]",
        ),
        (
            lambda: Backbone(nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(3))), ["0"]),
            "Sequential must take one tensor and return logits .samples, classes., got Tensor",
        ),
        (lambda: Backbone({"class_path": "mynet.Net"}, ["0"]), "must be a name"),
        (lambda: Backbone("tim:resnet18", ["layer1"]), "before the colon stands timm or hf"),
        (lambda: Backbone("timm:resnet81", ["layer1"]), "timm:resnet81.*resnet18"),
        (lambda: Backbone("hf:/no/folder", ["layer1"]), "model='hf:/no/folder' cannot be built"),
        (lambda: Backbone("math.sin", ["layer1"]), "model='math.sin' cannot be built"),
        (lambda: Backbone(sequential(), ["2"], weights="no.pt"), r"weights='no\.pt'"),
        (lambda: Backbone("timm:resnet18", ["layer1"], weights="no.pt"), r"weights='no\.pt'"),
        (lambda: Backbone(nn.Sequential(nn.ReLU()), ["0"], 2), "no linear layer"),
    ],
)
def test_what_does_not_fit_is_named(make: Callable[[], Backbone], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["timm-vit", "hf-swin"])
def test_exported_graphs_answer_alike(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    make, exits, _ = NETWORKS[name]
    net = Backbone(make(), exits, input_size=[3, 32, 32]).eval()
    x = torch.randn(8, 3, 32, 32)
    with torch.no_grad():
        logits = net(x)
    outputs = ExitOutputs(torch.tensor(count_macs(net, x)), logits, labels=torch.arange(8) % 5)
    predictor = AdaptivePredictor(net, MaxProbability().fit(outputs), 0.8)
    export(predictor, x[:2], tmp_path)
    for batch in (x, x[:1]):
        answers, left = OnnxPredictor(tmp_path).predict(batch.numpy())
        expected = predictor.predict(batch)
        assert left.tolist() == expected.exits.tolist()
        probabilities = torch.from_numpy(answers).softmax(1)
        torch.testing.assert_close(probabilities, expected.probabilities, atol=1e-5, rtol=1e-4)
