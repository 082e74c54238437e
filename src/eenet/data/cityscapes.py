"""Cityscapes (Cordts et al. 2016), and other street scenes in its layout."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import datasets, tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from eenet.data.decode import convert, decode, image_files, visible, warn_left_out
from eenet.data.image_folder import NORMALIZE
from eenet.data.splits import DataSource, IndexedDataset, Split, split_indices

CLASSES = [c for c in datasets.Cityscapes.classes if 0 <= c.train_id < 255]
_TRAIN_IDS = torch.full((256,), 255)
_TRAIN_IDS[[c.id for c in CLASSES]] = torch.tensor([c.train_id for c in CLASSES])
_IMAGES, _LABELS = "_leftImg8bit", "_gtFine_labelIds.png"
_LOOKED_AT = 20
"""Label files of a folder whose ids are checked at set-up."""


class CityscapesSource(DataSource):
    """Street scenes with fine labels of 19 classes; pixels of no class are 255.

    Batches are `(images [B, 3, h, w] float32, labels [B, H, W] int64)`, normalized by ImageNet's
    statistics. Training rescales, crops and mirrors at random; evaluation resizes only the images,
    never the labels. Cityscapes' test labels are secret: by default "test" is its validation set.

    Args:
        root: Folder with `leftImg8bit` and `gtFine`.
        image_size: Height and width to which images are resized; None leaves them.
        crop: Height and width of training crops.
        rescale: Range of the random factor.
        val_from: Folder of the val and cal splits; "train" holds `val_size` out, "val" is taken.
        test_from: Which folder is the test split.
        val_size: Images held out for validation with `val_from="train"`.
        **settings: Those of `DataSource`.

    Raises:
        FileNotFoundError: At set-up, if `root` is not laid out so, or an image has no labels.
        ValueError: At set-up, if the labels are not labelIds. While reading, if a file is damaged,
            or labels are colors, of unknown ids or of another shape than their image.
    """

    has_test_set = True
    num_classes = len(CLASSES)
    class_names = [c.name for c in CLASSES]  # noqa: RUF012

    def __init__(
        self,
        root: str = "data/cityscapes",
        image_size: tuple[int, int] | None = None,
        crop: tuple[int, int] = (512, 1024),
        rescale: tuple[float, float] = (0.5, 2.0),
        val_from: Literal["train", "val"] = "train",
        test_from: Literal["val", "test"] = "val",
        val_size: int = 300,
        **settings: Any,
    ) -> None:
        super().__init__(val_size=val_size, **settings)
        self.root, self.image_size, self.rescale = root, image_size, rescale
        self.val_from, self.test = val_from, test_from
        cut = v2.RandomCrop(crop, pad_if_needed=True, fill={tv_tensors.Mask: 255, "others": 0})
        self._augment = v2.Compose([cut, v2.RandomHorizontalFlip(), NORMALIZE])

    def read(self) -> dict[Split, Dataset[Any]]:
        """Lists and divides the files."""
        train, test = self._folder("train"), self._folder(self.test)
        splits: dict[Any, Any] = {"train": train, "test": test}
        if self.val_from == "train":
            return splits | self.divide(train)
        val = self._folder("val")
        parts = split_indices(len(val), {"cal": self.sizes["cal"]}, self.split_seed)
        parts["val"] = parts.pop("train")
        return splits | {name: val.select(index) for name, index in parts.items()}

    def encode(self, raw: Sequence[str | Path | Image.Image]) -> Tensor:
        """Images of one size, or their files, as the network takes them, `[B, 3, h, w]` float32."""
        images = [F.to_image(decode(image)) for image in raw]
        size = list(self.image_size or images[0].shape[-2:])
        return torch.stack([NORMALIZE(F.resize(image, size)) for image in images])

    def _read_plain(self, file: str, labels_file: Path) -> tuple[Tensor, Tensor]:
        image, labels = _read(file, labels_file)
        return self.encode([image])[0], labels

    def read_augmented(self, file: str, labels_file: Path) -> Any:
        """An image and its labels, rescaled, cropped and mirrored at random."""
        image, labels = _read(file, labels_file)
        factor = torch.empty(()).uniform_(*self.rescale).item()
        size = [round(factor * side) for side in self.image_size or (image.height, image.width)]
        return self._augment(F.resize(F.to_image(image), size), F.resize(labels, size))

    def _folder(self, name: str) -> IndexedDataset:
        images, labels = Path(self.root, "leftImg8bit", name), Path(self.root, "gtFine", name)
        files = sorted(image_files(images)) if images.is_dir() and labels.is_dir() else []
        if not files:
            raise FileNotFoundError(
                f"root={self.root!r} must hold leftImg8bit/{name} and gtFine/{name}, with images"
            )
        there = {path for path in labels.rglob(f"*{_LABELS}") if visible(path.name)}
        names = [str(Path(file).relative_to(images).with_suffix("")) for file in files]
        ids = [labels / f"{name.removesuffix(_IMAGES)}{_LABELS}" for name in names]
        if missing := [path for path in ids if path not in there]:
            raise FileNotFoundError(
                f"{images}: {len(missing)} of {len(ids)} images have no labels; {missing[0]} is "
                "missing, the first of them"
            )
        warn_left_out(labels, sorted(map(str, there.difference(ids))), "have no image")
        _check_ids(labels, ids)
        return IndexedDataset(list(zip(files, ids, strict=True)), self._read_plain)


def _read(file: str, labels_file: Path) -> tuple[Image.Image, tv_tensors.Mask]:
    image, ids = decode(file), convert(labels_file, _label_ids)
    (width, height), (rows, columns) = image.size, ids.shape
    if abs(width * rows - height * columns) > max(*image.size, *ids.shape):
        raise ValueError(
            f"{labels_file}: labels of {columns} x {rows} pixels do not fit the image {file}, "
            f"{width} x {height}"
        )
    return image, tv_tensors.Mask(_TRAIN_IDS[ids])


def _label_ids(image: Image.Image) -> Tensor:
    """The labelIds of an image of labels, `[H, W]` int64; -1 is 255."""
    if len(image.getbands()) > 1 or image.mode in ("1", "F"):
        raise ValueError(f"it holds {image.mode} pixels, but labels hold one of the labelIds each")
    ids = np.asarray(image)
    none = (ids == 255) | (ids == -1) | (ids == 65535)  # the last is -1 in 16 bits
    if (wrong := ids[~none & ((ids < 0) | (ids > 34))]).size:
        raise ValueError(f"{wrong[0]} is none of the labelIds, 0 ... 34, -1 and 255")
    return torch.from_numpy(ids.astype(np.uint8)).long()


def _check_ids(folder: Path, files: list[Path]) -> None:
    """Refuses trainIds: they end at 18, and what they use below has no class among labelIds."""
    some = files[:: -(-len(files) // _LOOKED_AT)]
    used = sum(torch.bincount(convert(file, _label_ids).flatten(), minlength=256) for file in some)
    ids = [i for i in range(255) if used[i]]  # type: ignore[index]
    if not ids or (ids[-1] <= 18 and not {*ids} <= {c.id for c in CLASSES}):
        raise ValueError(
            f"{folder}: {len(some)} of the labels hold only the ids {ids}; labelIds are needed "
            "(road is 7, sky is 23), not trainIds or labels that are kept secret"
        )
