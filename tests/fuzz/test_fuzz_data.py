"""Damaged and unsuitable data files: an error that names the file, or the data."""

import io
import struct
from pathlib import Path

import datasets
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.conftest import make_outputs

from eenet.data import CIFAR10, FashionMNIST, ImageFolder, TextClassification
from eenet.outputs import load_outputs, save_outputs

WORDS = ["a", "good", "film", "no", "plot"]
CSV = b"text,label\n" + b"".join(b"a good film,%d\n" % (i % 2) for i in range(12))


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    """A tokenizer, and the caches of datasets, away from everything else."""
    home, patch = tmp_path_factory.mktemp("home"), pytest.MonkeyPatch()
    patch.setattr(datasets.config, "HF_DATASETS_CACHE", home / "cache")
    datasets.disable_progress_bars()
    vocabulary = {word: n for n, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    transformers.BertTokenizer(vocab=vocabulary).save_pretrained(home)
    yield home
    datasets.enable_progress_bars()
    patch.undo()


class Text:
    """A table of texts."""

    def __init__(self, folder, home, suffix):
        self.path, self.home = folder / f"texts{suffix}", home
        content = io.BytesIO(CSV)
        if suffix == ".parquet":
            table = datasets.Dataset.from_dict({"text": ["a film"] * 12, "label": [0, 1] * 6})
            table.to_parquet(content := io.BytesIO())
        self.path.write_bytes(content.getvalue())

    def read(self):
        data = TextClassification(
            str(self.home), str(self.path), 2, test=str(self.path), val_size=1, batch_size=2
        )
        data.setup()
        return [y for _, y in data.test_dataloader()], 2


class Cifar:
    """The hub's parquet form."""

    def __init__(self, folder, _, suffix, labels=(*range(10), 0, 0), sizes=(32,) * 12):
        self.path = folder / "test.parquet"
        images = []
        for size in sizes:
            Image.new("RGB", (size, size)).save(file := io.BytesIO(), "PNG")
            images.append({"bytes": file.getvalue(), "path": None})
        features = {"img": datasets.Image(), "label": datasets.Value("int64")}
        columns = {"img": images, "label": list(labels)}
        table = datasets.Dataset.from_dict(columns, datasets.Features(features))
        table.to_parquet(self.path)
        (folder / "train.parquet").write_bytes(self.path.read_bytes())

    def read(self):
        data = CIFAR10(root=str(self.path.parent), val_size=2, batch_size=2)
        data.setup()
        return [y for _, y in data.test_dataloader()], 10


class Idx:
    """Fashion-MNIST's own form."""

    def __init__(self, folder, _, suffix):
        raw = folder / "FashionMNIST" / "raw"
        raw.mkdir(parents=True)
        for split in ("train", "t10k"):
            images = struct.pack(">IIII", 2051, 6, 28, 28) + bytes(6 * 784)
            (raw / f"{split}-images-idx3-ubyte").write_bytes(images)
            (raw / f"{split}-labels-idx1-ubyte").write_bytes(
                struct.pack(">II", 2049, 6) + bytes(range(6))
            )
        self.root, self.path = folder, raw / f"t10k-{suffix}-ubyte"

    def read(self):
        data = FashionMNIST(root=str(self.root), val_size=2, batch_size=2)
        data.setup()
        return [y for _, y in data.test_dataloader()], 10


class Folder:
    """A folder of images."""

    def __init__(self, folder, _, suffix):
        for name in ("train/cat", "train/dog", "val/cat", "val/dog"):
            (folder / name).mkdir(parents=True)
            for number in range(2):
                Image.new("RGB", (9, 9)).save(folder / name / f"{number}{suffix}")
        self.root, self.path = folder, folder / f"val/dog/1{suffix}"

    def read(self):
        data = ImageFolder(
            str(self.root), num_classes=2, image_size=8, resize=8, val_size=1, batch_size=2
        )
        data.setup()
        return [y for _, y in data.test_dataloader()], 2


class Outputs:
    """Exit outputs."""

    def __init__(self, folder, _, suffix):
        self.path = folder / "val.safetensors"
        save_outputs(make_outputs(samples=9), self.path)

    def read(self):
        outputs = load_outputs(self.path)
        assert torch.isfinite(outputs.evidence().log_probs).all()
        return [outputs.labels], 5


FORMS = [(Text, ".csv"), (Text, ".parquet"), (Cifar, ""), (Idx, "images-idx3")]
FORMS += [(Idx, "labels-idx1"), (Folder, ".png"), (Folder, ".jpg"), (Outputs, "")]


def read_or_named(source):
    """Whether the data was read; if not, the error names the file or its folder."""
    try:
        batches, classes = source.read()
    except (ValueError, FileNotFoundError) as error:
        named = [str(source.path), str(getattr(source, "root", source.path.parent))]
        return any(name in str(error) for name in named) or str(error)
    labels = torch.cat(batches)
    assert 0 <= int(labels.min()) <= int(labels.max()) < classes
    return True


@st.composite
def damaged(draw, content):
    """The content cut off, or with some bytes changed, added or taken away."""
    if draw(st.booleans()):
        content = content[: draw(st.integers(0, len(content)))]
    for _ in range(draw(st.integers(0, 3))):
        place, old = draw(st.integers(0, len(content))), draw(st.integers(0, 2))
        content = content[:place] + draw(st.binary(max_size=4)) + content[place + old :]
    return content


@pytest.mark.parametrize(("form", "suffix"), FORMS, ids=lambda x: getattr(x, "__name__", x))
def test_a_damaged_file_is_named(form, suffix, tmp_path_factory, home):
    source = form(tmp_path_factory.mktemp("data"), home, suffix)
    assert read_or_named(source) is True
    whole = source.path.read_bytes()

    @settings(max_examples=settings.default.max_examples // 5)
    @given(damaged(whole))
    def check(content):
        source.path.unlink()  # what is mapped from it stays as it was
        source.path.write_bytes(content)
        assert read_or_named(source) is True

    check()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"text,label\n",
        CSV.decode().encode("utf-16"),
        CSV + "caf\xe9,1\n".encode("latin-1"),
        CSV + b"a,b,c\n",
        CSV + b'"a film,1\n',
        CSV.replace(b"label", b"target"),
        CSV.replace(b",1", b","),
        CSV.replace(b",1", b",0.5"),
    ],
)
def test_an_unsuitable_table_is_refused(content, tmp_path, home):
    source = Text(tmp_path, home, ".csv")
    source.path.write_bytes(content)
    with pytest.raises(ValueError, match=r"texts\.csv"):
        source.read()


@pytest.mark.parametrize(
    "wrong", [{"labels": [-1] * 12}, {"labels": [10] * 12}, {"sizes": [8] * 12}]
)
def test_unsuitable_images_are_refused(wrong, tmp_path, home):
    with pytest.raises(ValueError, match=str(Path(tmp_path).name)):
        Cifar(tmp_path, home, "", **wrong).read()
