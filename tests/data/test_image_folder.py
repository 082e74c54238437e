from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.io import write_png

from eenet.data import ImageFolder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split, count in (("train", 5), ("val", 2)):
        for label, name in enumerate(("cat", "dog")):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                image = torch.full((3, 20, 30), 100 * label + number, dtype=torch.uint8)
                write_png(image, str(folder / f"{number}.png"))
    return tmp_path


def make(root: Path, **options: object) -> ImageFolder:
    settings = {"num_classes": 2, "image_size": 8, "resize": 10, "val_size": 3, "cal_size": 2}
    settings |= {"batch_size": 2, "num_workers": 0} | options
    data = ImageFolder(str(root), **settings)  # type: ignore[arg-type]
    data.setup()
    return data


def test_splits_are_disjoint_and_the_val_folder_is_test(root: Path) -> None:
    data = make(root)
    assert data.has_calibration
    labels = {s: torch.cat([y for _, y in data.loader(s, False)]) for s in ("train", "val", "cal")}
    assert {split: len(y) for split, y in labels.items()} == {"train": 5, "val": 3, "cal": 2}
    assert torch.cat(list(labels.values())).bincount().tolist() == [5, 5]
    images, test_labels = next(iter(data.test_dataloader()))
    assert images.shape == (4, 3, 8, 8)
    assert images.dtype == torch.float32
    assert test_labels.tolist() == [0, 0, 1, 1]
    # Grey level 0, by ImageNet's mean and deviation.
    torch.testing.assert_close(images[0, 0, 0, 0], torch.tensor(-0.485 / 0.229))


def test_training_is_augmented_and_reproducible(root: Path) -> None:
    data = make(root)
    epochs = []
    for _ in range(2):
        epochs.append(torch.cat([y for _, y in data.train_dataloader()]))
    assert torch.equal(*epochs)
    assert len(epochs[0]) == 4  # the incomplete batch is left out
    plain, augmented = data.dataset("train", False), data.dataset("train", True)
    assert torch.equal(plain.index, augmented.index)  # type: ignore[attr-defined]
    raw = [Image.new("L", (30, 20), 100)]
    torch.testing.assert_close(data.encode(raw)[0, 0, 0, 0].item(), (100 / 255 - 0.485) / 0.229)


def test_plain_class_folders_are_divided(root: Path) -> None:
    data = make(root / "train", num_classes=None, val_size=0.2, cal_size=0, test_size=0.3)
    sizes = {split: len(data.dataset(split, False)) for split in ("train", "val", "test")}
    assert sizes == {"train": 5, "val": 2, "test": 3}
    seen = [i for s in sizes for i in data.dataset(s, False).index.tolist()]
    assert sorted(seen) == list(range(10))
    assert (data.num_classes, data.class_names) == (2, ["cat", "dog"])
    assert len(data.dataset("train", True)) == 5
    with pytest.raises(ValueError, match=r"test_size=0.*hold out for test"):
        make(root / "train")


def test_bad_folders_are_named(root: Path) -> None:
    with pytest.raises(ValueError, match="num_classes=3"):
        make(root, num_classes=3)
    with pytest.raises(FileNotFoundError, match=r"root=.*train"):
        make(root / "nothing")
    with pytest.raises(ValueError, match="nothing to train on"):
        make(root, val_size=10)
