"""What holds for every network, and each network against the one it is built from."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from eenet import losses
from eenet.costs import count_macs, measure_costs
from eenet.lightning_cli import stage_parser
from eenet.models import (
    CifarResNet,
    DenseNet,
    HRNet,
    MSDNet,
    MultiExitNetwork,
    TorchvisionBackbone,
    TransformerEncoder,
    narrow,
)
from eenet.modules.multi_exit import MultiExitModule

BERT = {
    "model_type": "bert",
    "num_hidden_layers": 3,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 40,
}
ROBERTA = BERT | {"model_type": "roberta", "pad_token_id": 1}
DISTILBERT = {
    "model_type": "distilbert",
    "n_layers": 3,
    "dim": 16,
    "n_heads": 2,
    "hidden_dim": 32,
    "vocab_size": 40,
}
SMALL_MSD = {"base": 2, "step": 1, "num_exits": 3, "channels": 4, "growth_rate": 2}
VIT_EXITS = ["encoder.layers.encoder_layer_0", "encoder.layers.encoder_layer_5"]


def images(size: int = 16) -> Tensor:
    return torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(0))


def sentences() -> dict[str, Tensor]:
    ids = torch.randint(3, 40, (4, 7), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(7) < torch.tensor([[7], [3], [5], [1]])).long()
    return {"input_ids": ids.masked_fill(mask == 0, 1), "attention_mask": mask}


# Eight channels at least: with four, the backward pass of torch 2.14 in the channels-last layout
# corrupted the heap on a CPU (double free; not in the contiguous layout, nor from eight on).
NETWORKS: dict[str, tuple[Callable[[], MultiExitNetwork], Callable[[], Any]]] = {
    "resnet": (lambda: CifarResNet(20, [1, 4, 9], 5, widths=(8, 8, 8), head_convs=1), images),
    "resnet-bottleneck": (
        lambda: CifarResNet(29, [3, 6, 9], 5, block="bottleneck", widths=(8, 8, 8)),
        images,
    ),
    "densenet": (
        lambda: DenseNet([2, 2, 2], [1, 3], 5, growth_rate=4, stem_channels=8, head_convs=1),
        images,
    ),
    "densenet-imagenet": (
        lambda: DenseNet([1, 1], [1, 2], 5, "imagenet", growth_rate=4, stem_channels=8),
        images,
    ),
    "msdnet": (lambda: MSDNet(**SMALL_MSD, num_classes=5), images),
    "msdnet-min": (
        lambda: MSDNet(
            **SMALL_MSD, num_classes=5, prune="min", step_mode="lin_grow", bottleneck=False
        ),
        images,
    ),
    "msdnet-imagenet": (
        lambda: MSDNet(**SMALL_MSD, num_classes=5, stem="imagenet", reduction=0),
        lambda: images(32),
    ),
    "torchvision-resnet18": (
        lambda: TorchvisionBackbone("resnet18", ["layer1", "layer3.0"], 5, head_convs=1),
        lambda: images(32),
    ),
    "hrnet": (lambda: HRNet("hrnet_w18_small", 5), lambda: images(32)),
    "bert": (lambda: TransformerEncoder(config=BERT, exits=[1, 3], num_classes=5), sentences),
    "bert-mean": (
        lambda: TransformerEncoder(config=BERT, exits=[1, 3], num_classes=5, pooling="mean"),
        sentences,
    ),
    "roberta": (lambda: TransformerEncoder(config=ROBERTA, exits=[2, 3], num_classes=5), sentences),
    "distilbert": (
        lambda: TransformerEncoder(config=DISTILBERT, exits=[1, 2, 3], num_classes=5),
        sentences,
    ),
}


@pytest.fixture(params=NETWORKS)
def case(request: pytest.FixtureRequest) -> tuple[Callable[[], MultiExitNetwork], Any]:
    torch.manual_seed(0)
    make, batch = NETWORKS[request.param]
    return make, batch()


@torch.no_grad()
def run_steps(net: MultiExitNetwork, x: Any, keep: Tensor | None = None) -> Tensor:
    """Logits of all exits, stage by stage; only some samples go on after the first exit."""
    state, logits = net.begin(x), []
    for k in range(net.num_exits):
        exit_logits, state = net.step(k, state)
        if keep is not None and k == 0:
            exit_logits, state = exit_logits[keep], narrow(state, keep)
        logits.append(exit_logits)
    return torch.stack(logits)


def test_every_network_keeps_the_contract(case: Any) -> None:
    make, x = case
    net = make().eval()
    with torch.no_grad():
        logits = net(x)
    assert logits.shape[:3] == (net.num_exits, 4, 5)
    torch.testing.assert_close(run_steps(net, x), logits, rtol=0, atol=1e-5)

    for keep in (torch.tensor([True, False, False, True]), torch.tensor([2])):
        kept = run_steps(net, x, keep)
        torch.testing.assert_close(kept, logits[:, keep], rtol=0, atol=1e-5)

    fresh = make().eval()
    fresh.load_state_dict(net.state_dict(), strict=True)
    torch.testing.assert_close(run_steps(fresh, x), logits, rtol=0, atol=1e-5)

    macs = count_macs(net, x)
    assert macs[0] > 0
    assert macs == sorted(set(macs))
    assert measure_costs(net, x, 0, 1).params[-1] == sum(p.numel() for p in net.parameters())


def test_every_head_and_stage_gets_gradient(case: Any) -> None:
    make, x = case
    net = make().train()
    logits = net(x)
    target = torch.arange(4).view(-1, *[1] * (logits.dim() - 3)).expand(4, *logits.shape[3:])
    losses.multi_exit_cross_entropy(
        logits, target, losses.exit_weights("uniform", net.num_exits)
    ).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
    for head in net.heads:
        assert any(p.grad.abs().sum() > 0 for p in head.parameters())  # type: ignore[union-attr]


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
    with pytest.raises(ValueError, match="never trained"):
        MultiExitModule(other, heads_only=True)


def test_a_frozen_network_stays_as_it_is(tmp_path: Any) -> None:
    torch.manual_seed(0)
    exits = ["layer1", "layer2"]
    path = str(tmp_path / "best.ckpt")
    there = MultiExitModule(TorchvisionBackbone("resnet18", exits, 5))
    torch.save({"state_dict": there.state_dict()}, path)
    net = TorchvisionBackbone("resnet18", exits, 5)
    MultiExitModule(net, start_from=path, heads_only=True).train()
    assert all(torch.equal(x, there.net.state_dict()[key]) for key, x in net.state_dict().items())
    with pytest.raises(ValueError, match=r"start_from=.* holds another network"):
        MultiExitModule(CifarResNet(), start_from=path)
    trained = {name for name, p in net.named_parameters() if p.requires_grad}
    assert trained == {f"heads.{k}.{name}" for k in (0, 1) for name, _ in head_parameters(net, k)}
    before = {key: value.clone() for key, value in net.state_dict().items()}
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, weight_decay=0.1)
    net(images(32)).square().sum().backward()
    optimizer.step()
    changed = {
        key for key, value in net.state_dict().items() if not torch.equal(value, before[key])
    }
    assert changed
    assert all(key.startswith(("heads.0.", "heads.1.")) for key in changed)


def head_parameters(net: MultiExitNetwork, k: int) -> list[tuple[str, nn.Parameter]]:
    return list(net.heads[k].named_parameters())


@pytest.mark.parametrize("config", [BERT, ROBERTA, DISTILBERT], ids=lambda c: c["model_type"])
def test_last_hidden_state_is_transformers(config: dict[str, Any]) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    theirs = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(**config)).eval()
    torch.manual_seed(0)
    ours = TransformerEncoder(config=config, exits=[1, 3]).eval()
    x = sentences()
    state = ours.begin(x)
    with torch.no_grad():
        for k in range(2):
            _, state = ours.step(k, state)
        expected = theirs(**x).last_hidden_state
    # What stands at padded places is never read.
    tokens = x["attention_mask"].bool()
    torch.testing.assert_close(state[0][tokens], expected[tokens], rtol=0, atol=1e-5)


def test_transformer_from_a_folder(tmp_path: Any) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(**BERT))
    theirs.save_pretrained(tmp_path)
    ours = TransformerEncoder(str(tmp_path), exits=[1, 3]).eval()
    x = sentences()
    with torch.no_grad():
        pooled = torch.tanh(ours.heads[-1].dense(run_hidden(ours, x)[:, 0]))
        expected = theirs.eval()(**x).pooler_output
    torch.testing.assert_close(pooled, expected, rtol=0, atol=1e-5)


def run_hidden(net: MultiExitNetwork, x: Any) -> Tensor:
    state = net.begin(x)
    for stage in net.stages:
        state = stage(state)
    hidden: Tensor = state[0]
    return hidden


def test_mask_and_token_types_are_optional() -> None:
    net = TransformerEncoder(config=BERT, exits=[1, 3]).eval()
    ids = sentences()["input_ids"]
    full = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.no_grad():
        logits = net({"input_ids": ids})
        torch.testing.assert_close(net(full), logits)
        torch.testing.assert_close(net(full | {"token_type_ids": torch.zeros_like(ids)}), logits)
        assert not torch.allclose(net(full | {"token_type_ids": torch.ones_like(ids)}), logits)


def test_a_stage_costs_no_later_layer() -> None:
    net = TransformerEncoder(config=BERT, exits=[1, 3]).eval()
    calls: list[str] = []
    for name, module in net.named_modules():
        if name.rpartition(".")[0].endswith(".layers"):
            module.register_forward_hook(lambda *_, name=name: calls.append(name))
    net.step(0, net.begin(sentences()))
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DenseNet(exits=[1, 2]), r"exits=\[1, 2\]"),
        (lambda: DenseNet(blocks=[]), r"blocks=\[\]"),
        (lambda: DenseNet(stem="tiny"), "stem='tiny'"),  # type: ignore[arg-type]
        (lambda: MSDNet(base=0), "base=0"),
        (lambda: MSDNet(num_exits=0), "num_exits=0"),
        (lambda: MSDNet(bottleneck_factors=[1]), r"bottleneck_factors=\[1\]"),
        (lambda: MSDNet(growth_rate=3, growth_factors=[1, 1, 2]), "growth_rate=3"),
        (lambda: MSDNet(reduction=2), "reduction=2"),
        (lambda: MSDNet(step_mode="odd"), "step_mode='odd'"),  # type: ignore[arg-type]
        (lambda: MSDNet(prune="all"), "prune='all'"),  # type: ignore[arg-type]
        (lambda: MSDNet(stem="tiny"), "stem='tiny'"),  # type: ignore[arg-type]
        (lambda: TorchvisionBackbone("resnet5"), "name='resnet5'"),
        (lambda: TorchvisionBackbone("resnet18", ["layer9"]), r"exits=\['layer9'\].*'layer4'"),
        (lambda: TorchvisionBackbone("resnet18", ["layer2.9"]), r"exits=.*'layer2\.1', 'layer3'"),
        (lambda: TorchvisionBackbone("resnet18", ["layer2", "layer1"]), "exits=.*in this order"),
        (lambda: TorchvisionBackbone("resnet18", ["layer1", "layer1.0"]), "exits=.*inside another"),
        (lambda: TorchvisionBackbone("resnet18", ["fc"]), "exits=.*before the classifier"),
        (lambda: TorchvisionBackbone("resnet18", ["layer2.0.conv1"]), "exits: .*bypasses"),
        (lambda: TorchvisionBackbone("resnet18", weights="V9"), "weights='V9'.*IMAGENET1K_V1"),
        (lambda: TorchvisionBackbone("resnet18", weights="no/such.pt"), r"'no/such\.pt'.* file"),
        (lambda: HRNet("resnet18"), "name='resnet18'.*hrnet_w48"),
        (lambda: HRNet(weights="nothing.pt"), r"weights='nothing\.pt'"),
        (lambda: HRNet("hrnet_w18_small")(images(48)), "images of 48 x 48"),  # type: ignore
        (lambda: TransformerEncoder(), "name_or_path"),
        (lambda: TransformerEncoder(config=BERT, exits=[1, 2]), r"exits=\[1, 2\]"),
        (lambda: TransformerEncoder(config={"model_type": "nope"}), "config=.*nope"),
        (lambda: TransformerEncoder(config={"model_type": "gpt2", "n_layer": 1}), "model_type='gp"),
        (lambda: TransformerEncoder("/no/such/folder"), "name_or_path='/no/such/folder'"),
    ],
)
def test_bad_arguments_are_named(make: Callable[[], MultiExitNetwork], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("net", ["TorchvisionBackbone", "HRNet"])
def test_the_flag_null_takes_random_weights(net: str) -> None:
    name = {"HRNet": "hrnet_w18_small", "TorchvisionBackbone": "resnet18"}[net]
    args = ["--model=eenet.modules.multi_exit.MultiExitModule", f"--model.net=eenet.models.{net}"]
    args += [f"--model.net.name={name}", "--model.net.weights=DEFAULT", "--model.net.weights=null"]
    config = stage_parser().parse_args([*args, "--data=eenet.data.Digits"])
    with torch.device("meta"):
        module = stage_parser().instantiate(config).model
    assert not module.net.trained


def test_long_sentences_are_named() -> None:
    net = TransformerEncoder(config=ROBERTA | {"max_position_embeddings": 8}, exits=[3])
    with pytest.raises(ValueError, match=r"7 tokens per sentence.*at most 6"):
        net(sentences())


def million_parameters(modules: nn.Module) -> float:
    return sum(p.numel() for p in modules.parameters()) / 1e6


def test_published_parameter_counts() -> None:
    with torch.device("meta"):
        # He et al. 2016, table 6: 0.27 M and 0.85 M (with parameter-free shortcuts).
        assert million_parameters(CifarResNet(20, [9])) == pytest.approx(0.27, abs=0.005)
        assert million_parameters(CifarResNet(56, [27])) == pytest.approx(0.85, abs=0.01)
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


def test_states_are_nests_of_tensors_with_the_batch_first(case: Any) -> None:
    make, x = case
    net = make().eval()
    with torch.no_grad():
        _, state = net.step(0, net.begin(x))
    assert all(len(leaf) == 4 for leaf in pytree.tree_leaves(state))


def test_importing_the_models_does_not_import_extras() -> None:
    code = "import sys, eenet.models; sys.exit(bool({'transformers', 'timm'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_without_its_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'eenet\[text\]'"):
        TransformerEncoder(config=BERT, exits=[3])
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'eenet\[seg\]'"):
        HRNet()
