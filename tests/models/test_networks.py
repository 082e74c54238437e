"""What holds for every network."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.models.networks import BERT, NETWORKS, images, run_steps
from torch import nn
from torch.utils import _pytree as pytree

from eenet.cli import main
from eenet.cli.lightning import stage_parser
from eenet.models import (
    Backbone,
    CifarResNet,
    DenseNet,
    HRNet,
    MSDNet,
    MultiExitNetwork,
    TorchvisionBackbone,
    TransformerEncoder,
    narrow,
)
from eenet.models.costs import count_macs, measure_costs
from eenet.modules import losses
from eenet.modules.multi_exit import MultiExitModule


@pytest.fixture(params=NETWORKS)
def case(request: pytest.FixtureRequest) -> tuple[Callable[[], MultiExitNetwork], Any]:
    torch.manual_seed(0)
    make, batch = NETWORKS[request.param]
    return make, batch()


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


def test_narrowing_keeps_values_and_layout() -> None:
    x = torch.randn(5, 8, 4, 6)
    layouts = [
        x,
        x.to(memory_format=torch.channels_last),
        x.transpose(2, 3),
        x[:, :, 0],
        x[:, 0, 0, 0],
    ]
    for keep in (torch.tensor([3, 0, 4]), torch.tensor([True, False, True, True, False])):
        for tensor in layouts:
            (found,) = narrow((tensor,), keep)
            assert torch.equal(found, tensor[keep])
            assert found.stride() == tensor[keep].stride()


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
        (
            lambda: TorchvisionBackbone("resnet5"),
            "no network 'resnet5', but .*resnet50",
        ),
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


def test_states_are_nests_of_tensors_with_the_batch_first(case: Any) -> None:
    make, x = case
    net = make().eval()
    with torch.no_grad():
        _, state = net.step(0, net.begin(x))
    assert all(len(leaf) == 4 for leaf in pytree.tree_leaves(state))


def test_importing_the_models_does_not_import_extras() -> None:
    code = "import sys, eenet.models; sys.exit(bool({'transformers', 'timm'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_without_its_package_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'eenet\[text\]'"):
        TransformerEncoder(config=BERT, exits=[3])
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'eenet\[seg\]'"):
        HRNet()
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'eenet\[timm\]'"):
        Backbone("timm:resnet18", ["layer1"])
    with pytest.raises(SystemExit):
        main(["exits", "timm:resnet18"])
    error = capsys.readouterr().err
    assert error == "eenet: error: this needs the package 'timm': pip install 'eenet[timm]'\n"
