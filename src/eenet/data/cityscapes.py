"""Cityscapes (Cordts et al. 2016), and other street scenes in its layout."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import datasets, tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from eenet.data.image_folder import NORMALISE
from eenet.data.splits import DataSource, Items, Split, split_indices

CLASSES = [c for c in datasets.Cityscapes.classes if 0 <= c.train_id < 255]
_TRAIN_IDS = torch.full((256,), 255)
_TRAIN_IDS[[c.id for c in CLASSES]] = torch.tensor([c.train_id for c in CLASSES])


class CityscapesSource(DataSource):
    """Street scenes with fine labels of 19 classes; pixels of no class are 255.

    Batches are `(images [B, 3, h, w] float32, labels [B, H, W] int64)`, normalised by ImageNet's
    statistics. Training rescales, crops and mirrors at random; evaluation resizes the images alone,
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
        FileNotFoundError: At set-up, if `root` is not laid out so.
    """

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
        self._change = v2.Compose([cut, v2.RandomHorizontalFlip(), NORMALISE])

    def read(self) -> dict[Split, Dataset[Any]]:
        """Lists and divides the files."""
        train = self._folder("train")
        splits: dict[Split, Any] = {"train": Items(train), "test": Items(self._folder(self.test))}
        if self.val_from == "train":
            return splits | {name: Items(train, i) for name, i in self.parts(len(train)).items()}
        val = self._folder("val")
        parts = split_indices(len(val), {"cal": self.sizes["cal"]}, self.split_seed)
        return splits | {"val": Items(val, parts["train"]), "cal": Items(val, parts["cal"])}

    def dataset(self, split: Split, training: bool) -> Dataset[Any]:
        """A split, augmented when `training`."""
        data: Any = super().dataset(split, training)
        return Items(self._folder("train", training=True), data.index) if training else data

    def encode(self, raw: Sequence[Image.Image]) -> Tensor:
        """Images of one size as the network takes them, `[B, 3, h, w]` float32."""
        images = [F.to_image(image.convert("RGB")) for image in raw]
        size = list(self.image_size or images[0].shape[-2:])
        return torch.stack([NORMALISE(F.resize(image, size)) for image in images])

    def _read(self, image: Image.Image, ids: Image.Image, training: bool) -> Any:
        labels = tv_tensors.Mask(_TRAIN_IDS[F.pil_to_tensor(ids)[0].long()])
        if not training:
            return self.encode([image])[0], labels
        factor = torch.empty(()).uniform_(*self.rescale).item()
        size = [round(factor * side) for side in self.image_size or (image.height, image.width)]
        return self._change(F.resize(F.to_image(image), size), F.resize(labels, size))

    def _folder(self, name: str, training: bool = False) -> Any:
        change = partial(self._read, training=training)
        try:
            data = datasets.Cityscapes(self.root, name, target_type="semantic", transforms=change)
        except RuntimeError as error:
            message = f"root={self.root!r} must hold leftImg8bit/{name} and gtFine/{name}"
            raise FileNotFoundError(message) from error
        data.images.sort()  # the file system's order differs between machines
        data.targets.sort()
        return data
