"""Cityscapes (Cordts et al. 2016), and other sets of street scenes in its layout."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import datasets, tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from eenet.data.splits import Items, Split, SplitDataModule, split_indices

_CLASSES = {c.train_id: c for c in datasets.Cityscapes.classes if 0 <= c.train_id < 255}
_TRAIN_IDS = torch.full((256,), 255, dtype=torch.uint8)
_TRAIN_IDS[[c.id for c in _CLASSES.values()]] = torch.tensor(list(_CLASSES), dtype=torch.uint8)
_NORMALISE = v2.Compose(
    [
        v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True),
        v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ]
)


class Cityscapes(SplitDataModule):
    """Street scenes with fine labels of 19 classes; pixels of no class are 255.

    Batches are `(images [B, 3, h, w] float32, labels [B, H, W] int64)`, normalised by ImageNet's
    mean and standard deviation. In evaluation only the images are resized: quality is measured on
    the labels as they are. The official test labels are secret: by default "test" is the official
    validation set, and validation is held out of the training set.

    Args:
        root: Folder with `leftImg8bit` and `gtFine`.
        image_size: Height and width to which images are resized; None leaves them.
        crop: Height and width of random training crops, taken after rescaling and padded.
        rescale: Range of a random factor on the size of training images.
        jitter: Strength of random brightness, contrast and saturation in training.
        val_from: "train" holds `val_size` images out, "val" takes the folder of that name, as for
            CamVid, whose test labels are public. The calibration split is of the same source.
        test_from: Which folder is the test split.
        val_size: Images held out for validation; not used with `val_from="val"`.
        **settings: Those of `SplitDataModule`.

    Raises:
        FileNotFoundError: At set-up, if `root` is not laid out so.
    """

    num_classes = len(_CLASSES)

    def __init__(
        self,
        root: str = "data/cityscapes",
        image_size: tuple[int, int] | None = None,
        crop: tuple[int, int] = (512, 1024),
        rescale: tuple[float, float] = (0.5, 2.0),
        jitter: float = 0.0,
        val_from: Literal["train", "val"] = "train",
        test_from: Literal["val", "test"] = "val",
        val_size: int = 300,
        **settings: Any,
    ) -> None:
        super().__init__(val_size=val_size, **settings)
        self.root = root
        self.image_size = image_size
        self.rescale = rescale
        self.val_from = val_from
        self.test_from = test_from
        self.class_names = [_CLASSES[i].name for i in range(self.num_classes)]
        fill = {tv_tensors.Image: 0, tv_tensors.Mask: 255}
        self._augment = v2.Compose(
            [
                v2.RandomCrop(crop, pad_if_needed=True, fill=fill),
                v2.RandomHorizontalFlip(),
                v2.ColorJitter(jitter, jitter, jitter),
                _NORMALISE,
            ]
        )

    def read(self) -> dict[Split, Dataset[Any]]:
        """Lists and divides the files."""
        train, test = self._folder("train"), self._folder(self.test_from)
        if self.val_from == "train":
            held = {name: Items(train, index) for name, index in self.parts(len(train)).items()}
            return {**held, "test": Items(test)}
        val = self._folder("val")
        cut = split_indices(len(val), {"cal": self.sizes["cal"]}, self.split_seed)
        held = {"val": Items(val, cut["train"]), "cal": Items(val, cut["cal"])}
        return {"train": Items(train), **held, "test": Items(test)}

    def dataset(self, split: Split, training: bool) -> Dataset[Any]:
        """A split, augmented when `training`."""
        data: Any = super().dataset(split, training)
        return Items(self._folder("train", training=True), data.index) if training else data

    def encode(self, raw: Sequence[Image.Image]) -> Tensor:
        """Images of one size as the network takes them, `[B, 3, h, w]` float32."""
        images = [F.to_image(image.convert("RGB")) for image in raw]
        if self.image_size is not None:
            images = [F.resize(image, list(self.image_size)) for image in images]
        stack: Tensor = torch.stack([_NORMALISE(image) for image in images])
        return stack

    def _evaluated(self, image: Image.Image, ids: Image.Image) -> tuple[Tensor, Tensor]:
        return self.encode([image])[0], _labels(ids).long()

    def _augmented(self, image: Image.Image, ids: Image.Image) -> tuple[Tensor, Tensor]:
        low, high = self.rescale
        factor = low + (high - low) * torch.rand(()).item()
        height, width = self.image_size or (image.height, image.width)
        size = [round(factor * height), round(factor * width)]
        x, y = self._augment(F.resize(F.to_image(image), size), F.resize(_labels(ids), size))
        return x, y.long()

    def _folder(self, name: str, training: bool = False) -> Any:
        change = self._augmented if training else self._evaluated
        try:
            data = datasets.Cityscapes(self.root, name, target_type="semantic", transforms=change)
        except RuntimeError as error:
            raise FileNotFoundError(
                f"root={self.root!r} must hold leftImg8bit/{name} and gtFine/{name}, each with one "
                "folder per city"
            ) from error
        # In the order of their names: the file system's order differs between machines.
        order = sorted(range(len(data)), key=data.images.__getitem__)
        data.images = [data.images[i] for i in order]
        data.targets = [data.targets[i] for i in order]
        return data


def _labels(ids: Image.Image) -> tv_tensors.Mask:
    return tv_tensors.Mask(_TRAIN_IDS[F.pil_to_tensor(ids)[0].long()])
