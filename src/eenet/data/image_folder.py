"""Image folders of any size, ImageNet above all: decoded and augmented in worker processes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import datasets, tv_tensors
from torchvision.transforms import v2

from eenet.data.splits import DataSource, Items, Split

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
"""Of ImageNet's pixels per channel, on [0, 1]."""
_TO_FLOAT = v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True)
NORMALISE = v2.Compose([v2.ToImage(), _TO_FLOAT, v2.Normalize(MEAN, STD)])


class ImageFolderSource(DataSource):
    """Images in `ROOT/train/CLASS/` and `ROOT/val/CLASS/`, or simply in `ROOT/CLASS/`.

    The first is how ImageNet is usually laid out. Its test labels are not public; papers report on
    its validation set, so `val/` is "test" here and the validation split is held out of `train/`.
    In the second, test too is held out: `test_size` says how much. Batches are
    `(images [B, 3, S, S] float32, labels [B] int64)`, normalised by ImageNet's mean and standard
    deviation. Training images are a random crop, mirrored at random (He et al. 2016, section 3.4,
    with the crops of torchvision's recipes); all others the central crop.

    Args:
        root: The folder.
        num_classes: Number of classes; by default as many as there are folders.
        image_size: Height and width S that the network gets.
        resize: Shorter side before the central crop.
        **settings: Those of `DataSource`.

    Raises:
        FileNotFoundError: At set-up, if a folder is missing.
        ValueError: At set-up, if the classes of the folders differ or are not `num_classes`, or
            there is nothing to test on.
    """

    def __init__(
        self,
        root: str,
        num_classes: int | None = None,
        image_size: int = 224,
        resize: int = 256,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.root, self.given_classes = root, num_classes
        crop = v2.RandomResizedCrop(image_size)
        self._augmented = v2.Compose([crop, v2.RandomHorizontalFlip(), NORMALISE])
        self._plain = v2.Compose([v2.Resize(resize), v2.CenterCrop(image_size), NORMALISE])

    def read(self) -> dict[Split, Dataset[Any]]:
        """Lists and divides the files."""
        rest = self._folder("train", self._plain)
        parts = self.parts(len(rest))
        test = rest if "test" in parts else self._folder("val", self._plain)
        self.class_names, self.num_classes = rest.classes, len(rest.classes)
        if rest.classes != test.classes or self.given_classes not in (None, self.num_classes):
            raise ValueError(
                f"num_classes={self.given_classes}: {self.root}/train has {len(rest.classes)} "
                f"classes and {self.root}/val {len(test.classes)}; they must be the same and as "
                "many as num_classes"
            )
        return {"test": Items(test), **{name: Items(rest, i) for name, i in parts.items()}}

    def dataset(self, split: Split, training: bool) -> Dataset[Any]:
        """A split, augmented when `training`."""
        data: Any = super().dataset(split, training)
        return Items(self._folder("train", self._augmented), data.index) if training else data

    def encode(self, raw: Sequence[Image.Image]) -> Tensor:
        """Images of any size and colour as the network takes them, `[B, 3, S, S]` float32."""
        return torch.stack([self._plain(image.convert("RGB")) for image in raw])

    def _folder(self, name: str, transform: v2.Transform) -> Any:
        path = root = Path(self.root)
        if (root / "train").is_dir() or not any(root.glob("*/")):
            path = root / name
        elif name == "val":
            raise ValueError(
                f"test_size=0: {root} has no folder train or val but one per class; give the "
                "samples, or the fraction, to hold out for test"
            )
        if not path.is_dir():
            raise FileNotFoundError(
                f"root={self.root!r} must hold one folder per class, or the folders train and val "
                f"with those; {path} does not exist"
            )
        return datasets.ImageFolder(str(path), transform, loader=_open)


def _open(path: str) -> Image.Image:
    try:
        return Image.open(path).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read ({error}): replace or remove it") from error
