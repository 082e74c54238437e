"""Image folders of any size, ImageNet above all: decoded and augmented in worker processes."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from eenet.data.decode import (
    UnreadableImage,
    decode,
    image_files,
    printable,
    readable,
    visible,
    warn_left_out,
)
from eenet.data.splits import DataSource, IndexedDataset, Split

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
"""Of ImageNet's pixels per channel, on [0, 1]."""
_TO_FLOAT = v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True)
NORMALIZE = v2.Compose([v2.ToImage(), _TO_FLOAT, v2.Normalize(MEAN, STD)])
_SPLITS: dict[str, Split] = {"train": "train", "training": "train", "test": "test"}
_SPLITS |= {"testing": "test", "val": "val", "valid": "val", "validation": "val"}


class ImageFolderSource(DataSource):
    """Images in `ROOT/CLASS/`, or in `ROOT/train/CLASS/` with `ROOT/val`, `ROOT/test` or both.

    A split of size 0 is the folder of its name; others are held out of the training images. With a
    `val_size`, val is the test split where there is no folder test, as papers use ImageNet, whose
    test labels are secret. A folder that would not be read is refused.

    Batches are `(images [B, 3, S, S] float32, labels [B] int64)`, decoded as `decode` says and
    normalized by ImageNet's mean and standard deviation. Training images are a random crop,
    mirrored at random (He et al. 2016, section 3.4, with the crops of torchvision's recipes); all
    others the central crop.

    Args:
        root: The folder.
        num_classes: Number of classes; by default as many as there are folders.
        image_size: Height and width S that the network gets.
        resize: Shorter side before the central crop.
        skip_unreadable: Leave out images that cannot be read; each is decoded once at set-up.
        **settings: Those of `DataSource`.

    Raises:
        FileNotFoundError: At set-up, if a folder is missing or a class has no image.
        ValueError: At set-up, if the classes of the folders differ or are not `num_classes`, a
            split has neither a folder nor a size, or both. While reading, if an image is damaged.
    """

    def __init__(
        self,
        root: str,
        num_classes: int | None = None,
        image_size: int = 224,
        resize: int = 256,
        skip_unreadable: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.root, self.given_classes, self.skip_unreadable = root, num_classes, skip_unreadable
        crop = v2.RandomResizedCrop(image_size)
        augmentation = v2.Compose([crop, v2.RandomHorizontalFlip(), NORMALIZE])
        self.read_augmented = partial(_read, augmentation)
        self._plain = v2.Compose([v2.Resize(resize), v2.CenterCrop(image_size), NORMALIZE])

    def read(self) -> dict[Split, Dataset[Any]]:
        """Lists and divides the files."""
        folders = _layout(Path(self.root))
        sources = self._sources(folders)
        names = [path.name for path in _folders(folders["train"])]
        self.class_names, self.num_classes = [printable(name) for name in names], len(names)
        if len(names) < 2 or self.given_classes not in (None, len(names)):
            raise ValueError(
                f"num_classes={self.given_classes}: {folders['train']} has {len(names)} classes, "
                f"{self.class_names}; there must be at least 2, and as many as num_classes"
            )
        splits = self.divide(self._images(folders["train"], names))
        for split, source in sources.items():
            splits[split] = self._images(folders[source], names)
        return splits

    def encode(self, raw: Sequence[str | Path | Image.Image]) -> Tensor:
        """Images, or their files, as the network takes them, `[B, 3, S, S]` float32."""
        return torch.stack([self._plain(decode(image)) for image in raw])

    def _sources(self, folders: dict[Split, Path]) -> dict[Split, Split]:
        """The splits that have a folder of their own, and the folder's name."""
        sizes: dict[Split, float] = {"val": self.sizes["val"], "test": self.sizes.get("test", 0)}
        sources = {split: split for split, size in sizes.items() if not size}
        if sources == {"test": "test"} and "test" not in folders:
            sources["test"] = "val"
        for split, name in sources.items():
            if name not in folders:
                raise ValueError(
                    f"{split}_size=0: {self.root} has no folder {split} with one folder per class; "
                    f"give the samples, or the fraction, to hold out for {split}"
                )
        unread = [name for name in sizes if name in folders and name not in sources.values()]
        if unread:
            raise ValueError(
                f"{', '.join(f'{name}_size={sizes[name]}' for name in unread)}: {self.root} has a "
                f"folder of its own for {' and '.join(unread)}; set the size to 0 to use it, or "
                "move it elsewhere to hold samples of train out"
            )
        return sources

    def _images(self, folder: Path, classes: list[str]) -> IndexedDataset:
        names = [path.name for path in _folders(folder)]
        if names != classes:
            raise ValueError(
                f"{folder} must have the classes of train: it lacks "
                f"{sorted({*classes} - {*names})} and has {sorted({*names} - {*classes})} besides"
            )
        files = image_files(folder)
        if self.skip_unreadable:
            files = readable(folder, files, self.num_workers)
        of_class: dict[str, list[str]] = {name: [] for name in classes}
        loose: list[str] = []
        for file in files:
            name, *below = os.path.relpath(file, folder).split(os.sep)
            (of_class[name] if below else loose).append(file)
        warn_left_out(folder, loose, "lie beside the folders of the classes")
        if empty := [name for name, images in of_class.items() if not images]:
            raise FileNotFoundError(f"{folder}: there is no image in the folders {empty}")
        images = [(file, label) for label, name in enumerate(classes) for file in of_class[name]]
        return IndexedDataset(images, partial(_read, self._plain))


def _read(transform: v2.Transform, file: str, label: int) -> tuple[Tensor, int]:
    try:
        return transform(decode(file)), label
    except UnreadableImage as error:
        raise UnreadableImage(f"{error}, or set skip_unreadable=true") from error


def _folders(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.is_dir() and visible(p.name))


def _layout(root: Path) -> dict[Split, Path]:
    """The folders of the splits; all is "train" where the root holds the classes themselves.

    Which it is, a class called "train" leaves open. Splits have folders in them, and beside them
    either another split or nothing else.
    """
    inside = _folders(root) if root.is_dir() else []
    named = [path for path in inside if path.name.lower() in _SPLITS]
    found = [path for path in named if _folders(path)]
    layout = {_SPLITS[path.name.lower()]: path for path in found}
    if not inside or (len(named) == len(inside) and "train" not in layout):
        raise FileNotFoundError(
            f"root={str(root)!r} must hold one folder per class, or the folders train, val and "
            "test with those"
        )
    if "train" not in layout or (len(layout) == 1 and len(named) < len(inside)):
        return {"train": root}
    if len(layout) < len(found):
        raise ValueError(f"root={str(root)!r} has several folders for a split: {found}")
    unlabelled = [str(path) for path in named if path not in found]
    warn_left_out(root, unlabelled, "have no folders of classes in them")
    return layout
