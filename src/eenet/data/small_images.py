"""Small images: handwritten digits, Fashion-MNIST, CIFAR-10 and CIFAR-100."""

from pathlib import Path
from typing import Any

import torch
import torchvision
from sklearn.datasets import load_digits
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from eenet.data.decode import decode
from eenet.data.splits import split_indices
from eenet.data.tables import read_table
from eenet.data.tensor_images import TensorImageSource


class DigitsSource(TensorImageSource):
    """The 1,797 handwritten digits (8 x 8, grey, 10 classes) inside scikit-learn.

    They come from the test set of the UCI "Optical Recognition of Handwritten Digits" (Alpaydin
    and Kaynak 1998). There is no official split: a fixed random one keeps `test_size` for test.

    Args:
        test_size: Samples of the test split.
        val_size: Samples held out for validation.
        crop_padding: Training images are shifted by up to this many pixels.
        batch_size: Samples per training batch.
        **settings: Those of `TensorImageSource`.
    """

    num_classes = 10
    mean = (0.3053,)
    std = (0.3760,)
    image_size = 8

    def __init__(
        self,
        test_size: int = 500,
        val_size: int = 400,
        crop_padding: int = 1,
        batch_size: int = 64,
        **settings: Any,
    ) -> None:
        super().__init__(val_size, crop_padding, flip=False, batch_size=batch_size, **settings)
        self.test_size = test_size

    def load(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """The digits as uint8 images `[N, 1, 8, 8]`, divided into the rest and test."""
        data = load_digits()
        images = torch.from_numpy(data.images * (255 / 16)).round().to(torch.uint8)[:, None]
        labels = torch.from_numpy(data.target).long()
        parts = split_indices(len(labels), {"test": self.test_size}, seed=0)
        rest, test = parts["train"], parts["test"]
        return (images[rest], labels[rest]), (images[test], labels[test])


class SmallImagesSource(TensorImageSource):
    """A torchvision image set, or the same in the hub's parquet form.

    Args:
        root: Folder of the data: either `train*.parquet` and `test*.parquet` files with an image
            and a label column, or the layout that torchvision expects.
        hub_id: Name on the Hugging Face hub to read instead of `root`.
        download: Whether torchvision may download into `root` what is missing.
        val_size: Samples held out of the official training set for validation.
        **settings: Those of `TensorImageSource`.

    Raises:
        FileNotFoundError: At set-up, if `root` holds neither form, or damaged files.
    """

    image_size = 32
    torchvision_class: type[Any]
    label_columns: tuple[str, ...] = ("label",)

    def __init__(
        self,
        root: str = "data",
        hub_id: str | None = None,
        download: bool = False,
        val_size: int = 5000,
        **settings: Any,
    ) -> None:
        super().__init__(val_size=val_size, **settings)
        self.root, self.hub_id, self.download = root, hub_id, download

    def load(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """The official training and test sets as uint8 images and labels."""
        if self.hub_id is not None or any(Path(self.root).glob("*.parquet")):
            source = self.hub_id or self.root
            return self._from_table(source, "train"), self._from_table(source, "test")
        return self._from_torchvision(train=True), self._from_torchvision(train=False)

    def _from_torchvision(self, train: bool) -> tuple[Tensor, Tensor]:
        try:
            data = self.torchvision_class(self.root, train=train, download=self.download)
        except (RuntimeError, AssertionError, ValueError, EOFError, LookupError, OSError) as error:
            raise FileNotFoundError(
                f"root={self.root!r} holds no *.parquet files and no complete files that "
                f"torchvision's {self.torchvision_class.__name__} reads ({error}). Give the folder "
                "of the data, replace damaged files, or download=true where there is internet."
            ) from error
        self.class_names = data.classes
        images = torch.as_tensor(data.data)
        images = images[:, None] if images.dim() == 3 else images.permute(0, 3, 1, 2)
        return images.contiguous(), torch.as_tensor(data.targets).long()

    def _from_table(self, source: str, split: str) -> tuple[Tensor, Tensor]:
        from datasets import Image

        table = read_table(source, split)
        image_column = _first_match(table.column_names, ("img", "image"))
        label_column = _first_match(table.column_names, self.label_columns)
        names = getattr(table.features[label_column], "names", None)
        if split == "test" and names != self.class_names:
            raise ValueError(
                f"{source}: train names the classes {self.class_names}, but test names them {names}"
            )
        self.class_names = names
        table, mode = table.cast_column(image_column, Image()), self.mode
        try:
            images = [pil_to_tensor(decode(x).convert(mode)) for x in table[image_column]]
            labels = list(table[label_column])
            if wrong := [label for label in labels if not isinstance(label, int)]:
                raise ValueError(f"the label {wrong[0]!r} is not a whole number")
            return torch.stack(images), torch.tensor(labels, dtype=torch.int64)
        except Exception as error:  # Pillow raises nearly every type there is
            raise ValueError(
                f"{source}: an image or label of {split} is missing, damaged, or of another form "
                f"than the rest ({error})"
            ) from error


class FashionMNISTSource(SmallImagesSource):
    """Fashion-MNIST: 28 x 28, grey, 10 classes, 60,000 + 10,000 (Xiao et al. 2017)."""

    num_classes = 10
    mean = (0.2860,)
    std = (0.3530,)
    image_size = 28
    torchvision_class = torchvision.datasets.FashionMNIST


class CIFAR10Source(SmallImagesSource):
    """CIFAR-10: 32 x 32, color, 10 classes, 50,000 + 10,000 (Krizhevsky 2009)."""

    num_classes = 10
    mean = (0.4914, 0.4822, 0.4465)
    std = (0.2470, 0.2435, 0.2616)
    torchvision_class = torchvision.datasets.CIFAR10


class CIFAR100Source(SmallImagesSource):
    """CIFAR-100: 32 x 32, color, 100 classes, 50,000 + 10,000 (Krizhevsky 2009)."""

    num_classes = 100
    mean = (0.5071, 0.4866, 0.4409)
    std = (0.2673, 0.2564, 0.2762)
    torchvision_class = torchvision.datasets.CIFAR100
    label_columns = ("fine_label", "label")


def _first_match(columns: list[str], wanted: tuple[str, ...]) -> str:
    for name in wanted:
        if name in columns:
            return name
    raise ValueError(f"the data has the columns {columns}, but none of {list(wanted)}")
