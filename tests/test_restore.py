"""A finished run needs nothing but its own folder: no encoder, tokenizer or weights file."""

import shutil
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torchvision
import yaml
from lightning.pytorch.callbacks import ModelCheckpoint

from eenet.data import TextClassification
from eenet.models import HRNet, TorchvisionBackbone, TransformerEncoder
from eenet.modules import MultiExitModule
from eenet.run_folder import RunFolder
from tests.models.networks import BERT, images, sentences

transformers = pytest.importorskip("transformers")


class OfAnotherSignature(TransformerEncoder):
    """Takes its encoder by another name, so that `restore_args` do not fit it."""

    def __init__(self, folder: str) -> None:
        super().__init__(folder, exits=[1, 3])


def save_run(folder: Path, net: Any, init_args: dict[str, Any]) -> Path:
    """A run folder that holds stage 1's checkpoint and config."""
    path = folder / "stage1/checkpoints/best.ckpt"
    path.parent.mkdir(parents=True)
    checkpoint = {"state_dict": {f"net.{name}": x for name, x in net.state_dict().items()}}
    MultiExitModule(net).on_save_checkpoint(checkpoint)
    torch.save(checkpoint, path)
    kind = type(net)
    described = {"class_path": f"{kind.__module__}.{kind.__qualname__}", "init_args": init_args}
    text = yaml.safe_dump({"model": {"init_args": {"net": described}}})
    (folder / "stage1/config.yaml").write_text(text)
    return folder


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    folder = tmp_path / "encoder"
    kind = transformers.AutoConfig.for_model(**BERT, layer_norm_eps=1e-3)
    transformers.AutoModel.from_config(kind).save_pretrained(folder)
    return folder


def test_an_encoder_is_restored_without_its_folder(encoder: Path, tmp_path: Path) -> None:
    arguments = {"name_or_path": str(encoder), "exits": [1, 3], "num_classes": 3}
    net = TransformerEncoder(**arguments).eval()
    run = save_run(tmp_path / "run", net, arguments)
    other = OfAnotherSignature(str(encoder))
    another = save_run(tmp_path / "other", other, {"folder": str(encoder)})
    assert len(RunFolder(another).network().heads) == 2
    shutil.rmtree(encoder)
    with torch.inference_mode():
        assert torch.equal(RunFolder(run).network().eval()(sentences()), net(sentences()))
    with pytest.raises(ValueError, match="no encoder can be loaded"):
        RunFolder(another).network()


@pytest.mark.parametrize(
    ("name", "exits", "size"), [("resnet18", ["layer1"], 32), ("googlenet", ["inception3b"], 64)]
)
@pytest.mark.filterwarnings("ignore:The default weight initialization")
def test_a_network_is_restored_without_a_download(
    name: str, exits: list[str], size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = torchvision.models.get_model(name, weights=None).state_dict()
    weights: Any = torchvision.models.get_model_weights(name)
    monkeypatch.setattr(weights, "get_state_dict", lambda self, **_: state)
    arguments = {"name": name, "exits": exits, "num_classes": 5, "weights": "DEFAULT"}
    net = TorchvisionBackbone(**arguments).eval()  # type: ignore[arg-type]
    run = save_run(tmp_path, net, arguments)
    monkeypatch.setattr(weights, "get_state_dict", lambda *_, **__: pytest.fail("a download"))
    with torch.inference_mode():
        assert torch.equal(RunFolder(run).network().eval()(images(size)), net(images(size)))


def test_a_network_is_restored_without_its_weights_file(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    weights = tmp_path / "weights.pt"
    torch.save(timm.create_model("hrnet_w18_small").state_dict(), weights)
    arguments = {"name": "hrnet_w18_small", "num_classes": 5, "weights": str(weights)}
    net = HRNet(**arguments).eval()  # type: ignore[arg-type]
    run = save_run(tmp_path / "run", net, arguments)
    weights.unlink()
    with torch.inference_mode():
        assert torch.equal(RunFolder(run).network().eval()(images(32)), net(images(32)))


def test_tokenizer_and_classes_are_in_the_checkpoint(encoder: Path, tmp_path: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "film"]
    vocabulary = {word: number for number, word in enumerate(words)}
    transformers.BertTokenizer(vocab=vocabulary).save_pretrained(encoder)
    (tmp_path / "texts.csv").write_text("text,label\n" + "good film,yes\nbad film,no\n" * 10)
    settings: dict[str, Any] = {"tokenizer": str(encoder), "train": str(tmp_path / "texts.csv")}
    settings |= {"val_size": 4, "test_size": 4, "batch_size": 4}
    data = TextClassification(**settings)
    net = TransformerEncoder(str(encoder), exits=[1, 3])
    run = save_run(tmp_path / "run", net, {"name_or_path": str(encoder)})
    folder = run / "stage1"
    trainer = L.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[ModelCheckpoint(folder / "checkpoints", "best", enable_version_counter=False)],
    )
    trainer.fit(MultiExitModule(net), datamodule=data)
    described = {"class_path": "eenet.data.TextClassification", "init_args": settings}
    (folder / "config.yaml").write_text(yaml.safe_dump({"data": described}))
    shutil.rmtree(encoder)
    restored = RunFolder(run).data()
    assert restored.class_names == ["no", "yes"]
    texts = ["good film", "film"]
    expected, got = data.encode(texts), restored.encode(texts)
    assert all(torch.equal(got[name], expected[name]) for name in expected)

    # Data that were changed after training are not mixed up with those that were trained on.
    (tmp_path / "texts.csv").write_text("text,label\n" + "good film,yes\nbad film,maybe\n" * 10)
    with pytest.raises(ValueError, match=r"'maybe', 'yes'.*trained on \['no', 'yes'\]"):
        restored.setup()
