"""Weights from the files that people have: every usual form is read, anything else is named."""

import argparse
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from eenet.files import load_weights
from eenet.models import CifarResNet, HRNet, MultiExitNetwork, TorchvisionBackbone
from eenet.modules import MultiExitModule

State = dict[str, Tensor]

FORMS: dict[str, Any] = {
    "plain": lambda state: state,
    "data_parallel": lambda state: {f"module.{name}": x for name, x in state.items()},
    "compiled": lambda state: {f"_orig_mod.module.{name}": x for name, x in state.items()},
    "imagenet_example": lambda state: {"state_dict": state, "best_acc1": torch.tensor(5.0)},
    "reference": lambda state: {
        "model": state,
        "optimizer": {"state": {}, "param_groups": []},
        "model_ema": {name: x + 1 for name, x in state.items()},
        "args": argparse.Namespace(epochs=3),
    },
    "own_word": lambda state: {"weights": state, "epoch": 3},
    "sorted": lambda state: dict(sorted(state.items())),
    "before_torch_0.4.1": lambda state: {n: x for n, x in state.items() if "num_batch" not in n},
}


def save(state: State, form: str, folder: Path) -> str:
    path = str(folder / f"{form}.pt")
    if form == "safetensors":
        path = path.replace(".pt", ".safetensors")
        save_file({name: x.contiguous() for name, x in state.items()}, path)
    else:
        torch.save(FORMS[form](state), path)
    return path


@pytest.mark.parametrize("form", [*FORMS, "safetensors"])
def test_usual_forms_give_the_same_network(form: str, tmp_path: Path) -> None:
    theirs = torchvision.models.resnet18(num_classes=5)
    path = save(theirs.state_dict(), form, tmp_path)
    ours = TorchvisionBackbone("resnet18", ["layer1"], 5, weights=path)
    assert ours.trained
    torch.testing.assert_close(ours.stages[0].conv1.weight, theirs.conv1.weight)
    torch.testing.assert_close(ours.heads[-1].fc.weight, theirs.fc.weight)


@pytest.mark.parametrize("classes", [None, 3])
def test_a_classifier_that_is_missing_or_for_other_classes_starts_anew(
    classes: int | None, tmp_path: Path
) -> None:
    state = torchvision.models.resnet18(num_classes=classes or 5).state_dict()
    state = {name: x for name, x in state.items() if classes or not name.startswith("fc.")}
    net = TorchvisionBackbone("resnet18", ["layer1"], 5, weights=save(state, "plain", tmp_path))
    assert not net.trained
    torch.testing.assert_close(net.stages[0].conv1.weight.data, state["conv1.weight"])


def resnet34() -> State:
    with torch.device("meta"):
        state = torchvision.models.resnet34().state_dict()
    return {name: torch.zeros(x.shape, dtype=x.dtype) for name, x in state.items()}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (resnet34, r"another network, with unknown layer1\.2\.conv1\.weight, .* and \d+ more"),
        (lambda: {"conv1.weight": torch.zeros(64, 3, 7, 7)}, "another network, without bn1.weight"),
        (lambda: {"epoch": 3, "best": 0.5}, r"a dict of \['epoch', 'best'\], not one state_dict"),
        (lambda: {"a": {"w": torch.ones(1)}, "b": {"w": torch.ones(1)}}, "not one state_dict"),
        (lambda: [torch.zeros(3)], "holds list, not one state_dict"),
        (lambda: nn.Linear(2, 2), "cannot be loaded safely: .* saved as a state_dict"),
    ],
)
def test_what_is_not_this_network_is_refused_by_name(
    content: Any, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "odd.pt"
    torch.save(content(), path)
    with pytest.raises(ValueError, match=rf"weights.*odd\.pt.*{message}"):
        TorchvisionBackbone("resnet18", ["layer1"], 5, weights=str(path))


def test_damaged_safetensors_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    save_file({"w": torch.zeros(100)}, path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"cut\.safetensors is corrupt or truncated"):
        load_weights(path)


@pytest.mark.parametrize(
    "make",
    [
        lambda: TorchvisionBackbone("resnet18", ["layer1"], 5, weights="DEFAULT"),
        lambda: HRNet("hrnet_w18_small", weights="DEFAULT"),
    ],
)
def test_without_internet_the_setting_and_the_way_out_are_named(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr("torchvision.models.resnet.ResNet18_Weights.get_state_dict", offline)
    monkeypatch.setattr("timm.create_model", offline)
    with pytest.raises(ValueError, match=r"weights='DEFAULT' cannot be .* not known.* null"):
        make()


def test_hrnet_takes_the_stages_of_timms_or_the_authors_files(tmp_path: Path) -> None:
    theirs = timm.create_model("hrnet_w18_small").state_dict()
    stem = {n: x for n, x in theirs.items() if not n.startswith(("incre", "down", "final", "clas"))}
    authors = {f"model.{name}": x for name, x in stem.items()}
    authors["model.last_layer.0.weight"] = torch.zeros(2, 2, 1, 1)
    for state in (theirs, authors):
        net = HRNet("hrnet_w18_small", 3, save(state, "plain", tmp_path))
        torch.testing.assert_close(net.stages[0][0].weight.data, theirs["conv1.weight"])


def option_a(depth: int = 8) -> State:
    """What others publish: one exit, shortcuts without parameters, a classifier called linear."""
    torch.manual_seed(0)
    net = CifarResNet(depth, exits=[(depth - 2) // 2], shortcut="pad")
    state = {}
    for name, x in net.state_dict().items():
        _, _, block, *rest = name.split(".")
        third = (depth - 2) // 6
        if name.startswith("heads."):
            state[f"linear.{rest[-1]}"] = torch.randn_like(x)
        elif block == "0":
            state[("conv1.", "bn1.")[int(rest[0])] + rest[1]] = x
        else:
            group, index = divmod(int(block) - 1, third)
            state[".".join([f"layer{group + 1}", str(index), *rest])] = x
    return state


def test_cifar_resnets_take_published_names(tmp_path: Path) -> None:
    state = option_a()
    path = save(state, "data_parallel", tmp_path)
    net = CifarResNet(8, [1, 3], shortcut="pad", weights=path)
    assert net.trained
    torch.testing.assert_close(net.heads[-1][-1].weight.data, state["linear.weight"])
    torch.testing.assert_close(net.stages[1][1].conv2.weight.data, state["layer3.0.conv2.weight"])
    assert not CifarResNet(8, [1, 3], 7, shortcut="pad", weights=path).trained
    with pytest.raises(ValueError, match=r"without layer2\.0\.downsample\.0\.weight"):
        CifarResNet(8, [1, 3], weights=path)
    with pytest.raises(FileNotFoundError, match=r"weights='nowhere\.th': there is no such file"):
        CifarResNet(8, [1, 3], shortcut="pad", weights="nowhere.th")


def test_padded_shortcuts_add_zeros_on_both_sides() -> None:
    x = torch.arange(2 * 16 * 4 * 4.0).view(2, 16, 4, 4)
    wide = CifarResNet(8, [3], shortcut="pad").stages[0][2].downsample(x)
    torch.testing.assert_close(wide[:, 8:24], x[:, :, ::2, ::2])
    assert wide.shape == (2, 32, 2, 2)
    assert not wide[:, :8].any()
    assert not wide[:, 24:].any()


def single_and_moved() -> tuple[MultiExitNetwork, MultiExitNetwork]:
    torch.manual_seed(1)
    return CifarResNet(14, [2, 6]), CifarResNet(14, [1, 3, 6], head_convs=1)


@pytest.mark.parametrize("form", ["plain", "safetensors", "lightning"])
def test_start_from_moves_stages_to_exits_elsewhere(form: str, tmp_path: Path) -> None:
    there, net = single_and_moved()
    path = str(tmp_path / "best.ckpt")
    if form == "lightning":
        module = MultiExitModule(there)
        torch.save({"state_dict": module.state_dict(), "epoch": 3, "loops": {}}, path)
    else:
        path = save(there.state_dict(), form, tmp_path)
    early = net.heads[0][-1].weight.clone()
    MultiExitModule(net, start_from=path, heads_only=True)
    x = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(net.eval()(x)[-1], there.eval()(x)[-1])
    torch.testing.assert_close(net.heads[0][-1].weight, early)


def test_start_from_keeps_heads_of_other_classes_anew(tmp_path: Path) -> None:
    there = CifarResNet(8, [1, 3], 7)
    path = save(there.state_dict(), "plain", tmp_path)
    net = CifarResNet(8, [1, 3])
    MultiExitModule(net, start_from=path)
    torch.testing.assert_close(net.stages.state_dict(), there.stages.state_dict())
    with pytest.raises(ValueError, match="never trained"):
        MultiExitModule(CifarResNet(8, [1, 3]), start_from=path, heads_only=True)
    with pytest.raises(ValueError, match=r"start_from=.*plain\.pt' holds another network"):
        MultiExitModule(CifarResNet(14, [1, 6]), start_from=path)
