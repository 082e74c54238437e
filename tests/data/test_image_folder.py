import itertools
import os
import warnings
from pathlib import Path

import pytest
import torch
from PIL import Image

from eenet.data import ImageFolder
from eenet.data.decode import decode


def fill(folder: Path, count: int, level: int = 0) -> None:
    """Writes `count` images, each of a grey level of its own."""
    folder.mkdir(parents=True)
    for number in range(count):
        Image.new("RGB", (30, 20), (level + number,) * 3).save(folder / f"{number}.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split, count in (("train", 5), ("val", 2)):
        for label, name in enumerate(("cat", "dog")):
            fill(tmp_path / split / name, count, 100 * label)
    return tmp_path


def make(root: Path, **options: object) -> ImageFolder:
    settings = {"num_classes": 2, "image_size": 8, "resize": 10, "val_size": 3, "cal_size": 2}
    settings |= {"batch_size": 2, "num_workers": 0} | options
    data = ImageFolder(str(root), **settings)  # type: ignore[arg-type]
    data.setup()
    return data


def sizes(data: ImageFolder) -> dict[str, int]:
    return {split: len(items) for split, items in data._splits.items()}  # type: ignore[arg-type]


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
    assert plain.samples == augmented.samples  # type: ignore[attr-defined]
    raw = [Image.new("L", (30, 20), 100)]
    torch.testing.assert_close(data.encode(raw)[0, 0, 0, 0].item(), (100 / 255 - 0.485) / 0.229)
    files = [file for file, _ in data._splits["test"].samples]  # type: ignore[attr-defined]
    assert torch.equal(data.encode(files), data._splits["test"][[0, 1, 2, 3]][0])


def test_plain_class_folders_are_divided(root: Path) -> None:
    data = make(root / "train", num_classes=None, val_size=0.2, cal_size=0, test_size=0.3)
    assert {split: len(data.dataset(split, False)) for split in sizes(data)} == {
        "train": 5,
        "val": 2,
        "test": 3,
        "cal": 0,
    }
    seen = [x for s in ("train", "val", "test") for x in data.dataset(s, False).samples]
    assert len(seen) == len(set(seen)) == 10
    assert (data.num_classes, data.class_names) == (2, ["cat", "dog"])
    assert len(data.dataset("train", True)) == 5
    with pytest.raises(ValueError, match=r"test_size=0.*hold out for test"):
        make(root / "train")


@pytest.mark.parametrize(
    ("folders", "held_out", "expected"),
    [
        ("train val", {"val": 2}, (8, 2, 4)),  # as ImageNet is used
        ("train val", {"test": 3}, (7, 4, 3)),
        (
            "train val",
            {"val": 2, "test": 3},
            "val_size=2: .*folder of its own for val",
        ),
        ("train val", {}, "test_size=0: .* no folder test"),
        ("train test", {"val": 2}, (8, 2, 4)),
        ("train test", {"val": 2, "test": 3}, "test_size=3: .*folder of its own for test"),
        ("train test", {}, "val_size=0: .* no folder val"),
        ("Training valid testing", {}, (10, 4, 4)),
        ("train val test", {"val": 2}, "val_size=2: .* folder of its own for val"),
        ("train val test", {"val": 2, "test": 3}, "val_size=2, test_size=3"),
        ("train", {"val": 2, "test": 3}, (5, 2, 3)),
        ("train train.ing", {"val": 2, "test": 3}, r"classes, \['train', 'train.ing'\]"),
        ("train Training", {"val": 2, "test": 3}, "several folders"),
    ],
)
def test_folders_of_splits_are_used_or_refused(tmp_path, folders, held_out, expected):
    for number, folder in enumerate(folders.split()):
        for name in ("cat", "dog"):
            fill(tmp_path / folder / name, 2 if number else 5)
    options = {"val_size": held_out.get("val", 0), "test_size": held_out.get("test", 0)}
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=expected):
            make(tmp_path, cal_size=0, num_classes=3, **options)
        return
    data = make(tmp_path, cal_size=0, **options)
    assert tuple(sizes(data)[split] for split in ("train", "val", "test")) == expected
    where = {s: {Path(f).parts[-3] for f, _ in data._splits[s].samples} for s in sizes(data)}
    names = folders.split()
    assert where["train"] == {names[0]}
    assert where["test"] == {names[0] if held_out.get("test") else names[-1]}


def test_a_class_may_be_called_train(tmp_path):
    for name in ("bus", "car", "train"):
        fill(tmp_path / name, 4)
    options = {"num_classes": None, "val_size": 2, "cal_size": 0, "test_size": 2}
    assert make(tmp_path, **options).class_names == ["bus", "car", "train"]
    fill(tmp_path / "train/2019", 2)
    data = make(tmp_path, **options)
    assert (data.class_names, sum(sizes(data).values())) == (["bus", "car", "train"], 14)
    for split in ("train", "test"):
        for name in ("bus", "car", "train"):
            fill(tmp_path / "both" / split / name, 3)
    data = make(tmp_path / "both", **options | {"test_size": 0})
    assert (data.class_names, sizes(data)["test"]) == (["bus", "car", "train"], 9)


def test_what_is_left_out_is_said(tmp_path):
    for name in ("cat", "dog", "__MACOSX", ".ipynb_checkpoints"):
        fill(tmp_path / name, 5)
    (tmp_path / "cat/more/still").mkdir(parents=True)
    for number, ending in enumerate((".GIF", ".jfif", ".avif", ".webp", ".bmp", ".tif")):
        file = tmp_path / ("cat/more/still", "dog")[number % 2] / f"x{ending}"
        Image.new("RGB", (30, 20)).save(file, {".jfif": "JPEG"}.get(ending))
    for hidden in ("cat/.DS_Store", "cat/Thumbs.db", "dog/._0.png"):
        (tmp_path / hidden).write_bytes(b"no image")
    options = {"val_size": 3, "test_size": 3, "cal_size": 0}
    with warnings.catch_warnings(action="error"):
        data = make(tmp_path, **options)
    assert (sum(sizes(data).values()), data.class_names) == (16, ["cat", "dog"])
    (tmp_path / "dog/notes.txt").touch()
    (tmp_path / "dog/film.mp4").touch()
    Image.new("L", (9, 9)).save(tmp_path / "loose.png")
    with (
        pytest.warns(UserWarning, match=r"2 \(1 \.mp4, 1 \.txt\) are not images.*/dog/film\.mp4"),
        pytest.warns(UserWarning, match=r"1 \(1 \.png\) lie beside .*loose\.png"),
    ):
        make(tmp_path, **options)
    (tmp_path / "set/test").mkdir(parents=True)
    for name in ("train/cat", "train/dog"):
        fill(tmp_path / "set" / name, 5)
    with pytest.warns(UserWarning, match="have no folders of classes in them.*/set/test"):
        make(tmp_path / "set", **options)


def test_bad_folders_are_named(root: Path) -> None:
    with pytest.raises(ValueError, match=r"num_classes=3: .*train has 2 classes, \['cat', 'dog'\]"):
        make(root, num_classes=3)
    with pytest.raises(FileNotFoundError, match=r"root=.*train"):
        make(root / "nothing")
    with pytest.raises(FileNotFoundError, match=r"root=.*train"):
        make(root / "train/cat")
    with pytest.raises(ValueError, match="nothing to train on"):
        make(root, val_size=10)
    with pytest.raises(ValueError, match=r"val_size=0.01: the val split holds no sample"):
        make(root, val_size=0.01)
    with pytest.raises(ValueError, match=r"\{'val': 2.5, 'cal': -1\} must be whole numbers"):
        make(root, val_size=2.5, cal_size=-1)
    (root / "val/dog").rename(root / "val/wolf")
    with pytest.raises(ValueError, match=r"val must have .* lacks \['dog'\] and has \['wolf'\]"):
        make(root)
    (root / "val/wolf").rename(root / "val/dog")
    (root / "train/dog").rename(root / "dogs")
    (root / "train/dog").mkdir()
    with pytest.raises(FileNotFoundError, match=r"train: there is no image in .* \['dog'\]"):
        make(root)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_damaged_image_is_named_or_left_out(root: Path, num_workers: int) -> None:
    damaged = root / "train/cat/3.png"
    os.truncate(damaged, 60)
    data = make(root, num_workers=num_workers)
    loaders = [data.loader(split) for split in ("train", "val", "cal")]
    with pytest.raises(ValueError, match=f"{damaged} cannot be read .*skip_unreadable=true"):
        list(itertools.chain(*loaders))
    with pytest.warns(UserWarning, match=f"cannot be read .*{damaged}"):
        data = make(root, num_workers=num_workers, skip_unreadable=True)
    assert sum(len(y) for s in ("train", "val", "cal") for _, y in data.loader(s)) == 9


def test_names_need_not_be_utf_8(tmp_path):
    for name in (b"caf\xe9", b"tea"):
        os.makedirs(folder := os.fsencode(tmp_path) + b"/" + name)
        for number in range(5):
            image = Image.new("L", (30, 20), number)
            image.save(os.fsdecode(folder + b"/\xff%d.png" % number))
    data = make(tmp_path, test_size=2, num_workers=1)
    assert data.class_names == ["caf\\xe9", "tea"]
    for split in sizes(data):
        x, y = next(iter(data.loader(split)))
        files = [file for file, _ in data._splits[split].samples]
        assert torch.equal(x, data.encode([decode(file) for file in files]))
        assert y.tolist() == ["/tea/" in file for file in files]
