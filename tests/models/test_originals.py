"""Each network against the one it is built from, and against published counts."""

from typing import Any

import pytest
import torch
import torchvision
from tests.models.networks import VIT_EXITS, images, run_steps
from torch import nn

from eenet.models import (
    DenseNet,
    HRNet,
    MSDNet,
    TorchvisionBackbone,
    TransformerEncoder,
)
from eenet.models.costs import count_macs
from eenet.modules.multi_exit import MultiExitModule


def test_densenet_is_torchvisions() -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.densenet121(num_classes=7).eval()
    ours = DenseNet(num_classes=7, stem="imagenet").eval()
    # Both hold the same tensors in the order in which they run.
    state = iter(theirs.state_dict().values())
    for part in (ours.stages, ours.heads[-1]):
        part.load_state_dict({key: next(state) for key in part.state_dict()}, strict=True)
    assert next(state, None) is None
    with torch.no_grad():
        torch.testing.assert_close(ours(images(64))[-1], theirs(images(64)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["hrnet_w18_small", "hrnet_w18_small_v2"])
def test_hrnets_branches_are_timms(name: str, tmp_path: Any) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    theirs = timm.create_model(name).eval()
    torch.save(theirs.state_dict(), tmp_path / "weights.pt")
    ours = HRNet(name, 5, str(tmp_path / "weights.pt")).eval()
    x = images(64)
    with torch.no_grad():
        assert ours(x).shape == (4, 4, 5, 16, 16)
        state: Any = ours.begin(x)
        for stage in ours.stages:
            state = stage(state)
        theirs.incre_modules = None  # so that it hands out its branches
        expected = theirs.forward_features(x)
    assert [branch.shape[-1] for branch in state] == [16, 8, 4, 2]
    for branch, other in zip(state, expected, strict=True):
        torch.testing.assert_close(branch, other, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "exits", "size"),
    [
        ("resnet18", ["layer1", "layer2", "layer3"], 64),
        ("resnet50", ["layer1", "layer2.1", "layer3"], 64),
        ("efficientnet_b0", ["features.2", "features.5"], 64),
        ("convnext_tiny", ["features.1", "features.3"], 64),
        ("swin_t", ["features.1", "features.3"], 64),
        ("googlenet", ["inception3b"], 64),
        ("squeezenet1_1", ["features.4"], 64),
        ("vit_b_16", VIT_EXITS, 64),
    ],
)
@pytest.mark.filterwarnings("ignore:The default weight initialization")
def test_last_exit_is_torchvisions(name: str, exits: list[str], size: int) -> None:
    size_of_vit = {"image_size": size} if name.startswith("vit") else {}
    torch.manual_seed(1)
    theirs = torchvision.models.get_model(name, num_classes=6, **size_of_vit).eval()
    torch.manual_seed(1)
    ours = TorchvisionBackbone(name, exits, 6, image_size=size).eval()
    x = images(size)[:2]
    with torch.no_grad():
        logits = ours(x)
        torch.testing.assert_close(logits[-1], theirs(x), rtol=0, atol=0)
    assert logits.shape == (len(exits) + 1, 2, 6)
    assert ours.channel_dim == (-1 if name.startswith(("swin", "vit")) else 1)
    one = torch.tensor([1])
    torch.testing.assert_close(run_steps(ours, x, one), logits[:, one], rtol=1e-4, atol=1e-5)


def test_torchvision_weights_from_a_file(tmp_path: Any) -> None:
    theirs = torchvision.models.resnet18(num_classes=6).eval()
    path = str(tmp_path / "resnet18.pt")
    torch.save(theirs.state_dict(), path)
    ours = TorchvisionBackbone("resnet18", ["layer2"], 6, path).eval()
    with torch.no_grad():
        torch.testing.assert_close(ours(images(32))[-1], theirs(images(32)), rtol=0, atol=0)
    other = TorchvisionBackbone("resnet18", ["layer2"], 3, path)
    assert other(images(32)).shape == (2, 4, 3)
    torch.testing.assert_close(
        other.stages[0].state_dict()["conv1.weight"], theirs.conv1.weight.detach()
    )
    assert (ours.trained, other.trained) == (True, False)
    MultiExitModule(other, heads_only=True).train()  # all heads, since the last one is new
    assert all(p.requires_grad for p in other.heads.parameters())
    assert not any(p.requires_grad for p in other.stages.parameters())
    assert (other.stages.training, other.heads.training) == (False, True)
    with pytest.raises(ValueError, match="never trained"):
        MultiExitModule(TorchvisionBackbone("resnet18", ["layer2"], 3), heads_only=True)


def million_parameters(modules: nn.Module) -> float:
    return sum(p.numel() for p in modules.parameters()) / 1e6


def test_published_parameter_counts() -> None:
    with torch.device("meta"):
        # torchvision's model tables: 7,978,856 and 25,557,032.
        single = DenseNet(exits=[4], stem="imagenet", num_classes=1000)
        assert million_parameters(single) == 7.978856
        assert million_parameters(TorchvisionBackbone("resnet50", [])) == 25.557032
        # google-bert/bert-base-uncased: 109,482,240 with one pooler.
        bert = TransformerEncoder(config={"model_type": "bert"}, exits=[12])
        with_pooler = million_parameters(bert.stages) + million_parameters(bert.heads[0].dense)
        assert with_pooler == pytest.approx(109.48224)


@pytest.mark.parametrize(
    ("name", "parameters", "operations"),
    [("hrnet_w18_small", 1.5, 31.1), ("hrnet_w18_small_v2", 3.9, 71.6), ("hrnet_w48", 65.8, 696.2)],
)
def test_published_costs_of_hrnet(name: str, parameters: float, operations: float) -> None:
    # README of HRNet/HRNet-Semantic-Segmentation: millions, and "GFLOPs" of a 1024 x 2048 image,
    # which are MACs in units of 2^30; 65,858,659 parameters are cut to 65.8, not rounded.
    with torch.device("meta"):
        net, image = HRNet(name), torch.empty(1, 3, 1024, 2048)
    macs = count_macs(net, image)
    early = million_parameters(net.heads[:-1])  # type: ignore[arg-type]
    assert million_parameters(net) - early == pytest.approx(parameters, abs=0.06)
    with torch.no_grad():
        state: Any = image
        for k in range(3):
            state = net.stages[k](state)
            width = sum(branch.shape[1] for branch in state)
            macs[-1] -= width * (width + 19) * 256 * 512  # this head, two 1x1 convolutions
    assert macs[-1] / 2**30 == pytest.approx(operations, abs=0.05)


def test_msdnet35_is_the_authors() -> None:
    with torch.device("meta"):
        net = MSDNet(
            base=7,
            step=7,
            num_exits=5,
            channels=32,
            growth_rate=16,
            growth_factors=[1, 2, 4, 4],
            bottleneck_factors=[1, 2, 4, 4],
            stem="imagenet",
            num_classes=1000,
        )
    # Channels that each classifier gets: github.com/kalviny/IMTA, models/msdnet_imta.py, step 7.
    assert [head.layers[-1].in_features for head in net.heads] == [576, 640, 608, 528, 976]
    # github.com/kalviny/MSDNet-PyTorch, models/msdnet.py, counted by the same counter; it has
    # 32 parameters more, a bias before the stem's batch norm.
    assert sum(p.numel() for p in net.parameters()) == 62_314_472 - 32
    macs = count_macs(net, torch.empty(1, 3, 224, 224, device="meta"))
    assert [round(m / 1e6) for m in macs] == [612, 1431, 2276, 2960, 3246]
