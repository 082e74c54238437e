"""Image sets that fit into memory: splits, batches and augmentation on the device."""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset
from torchvision.transforms.v2.functional import normalize, pil_to_tensor

from eenet.data.decode import decode
from eenet.data.splits import DataSource, Split


class TensorImageSource(DataSource):
    """Base of in-memory image sets; a subclass says how to `load` its training and test images.

    Batches are `(images [B, C, H, W] float32, labels [B] int64)` after the transfer to the device,
    where they are scaled to zero mean and unit variance per channel and, during training only,
    shifted and mirrored at random, each sample on its own.

    Args:
        val_size: Samples held out for validation.
        crop_padding: Training images are shifted by up to this many pixels each way.
        flip: Whether training images are mirrored with probability 1/2.
        mean: Mean of each channel that normalizes images, where a trained network was given
            another than the set's own.
        std: Standard deviation of each channel, likewise.
        **settings: Those of `DataSource`.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: int
    has_test_set = True

    def __init__(
        self,
        val_size: int,
        crop_padding: int = 4,
        flip: bool = True,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(val_size=val_size, **settings)
        self.crop_padding, self.flip = crop_padding, flip
        self.mean, self.std = tuple(mean or self.mean), tuple(std or self.std)
        if len(self.mean) != len(self.std) or min(self.std) <= 0:
            raise ValueError(
                f"mean={list(self.mean)} and std={list(self.std)} must hold one number per channel "
                "each, those of std positive"
            )

    @property
    def mode(self) -> str:
        """Pillow's name of what the channels are."""
        return "L" if len(self.mean) == 1 else "RGB"

    @abstractmethod
    def load(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """The official sets: `((images, labels), (test images, test labels))`.

        Images are uint8 `[N, C, H, W]`, labels int64 `[N]`.
        """

    def read(self) -> dict[Split, Dataset[Any]]:
        """Loads, checks and divides the images."""
        (images, labels), test = self.load()
        self._check("training", images, labels)
        self._check("test", *test)
        splits: dict[Split, Dataset[Any]] = {"test": TensorDataset(*test)}
        for name, index in self.parts(len(labels)).items():
            splits[name] = TensorDataset(images[index], labels[index])
        return splits

    def _check(self, name: str, images: Tensor, labels: Tensor) -> None:
        where = f"{getattr(self, 'root', type(self).__name__)}: the {name}"
        wanted = (len(labels), len(self.mean), self.image_size, self.image_size)
        if tuple(images.shape) != wanted or not len(labels):
            raise ValueError(
                f"{where} images must be {list(wanted[1:])} and as many as their labels, "
                f"{len(labels)}; got {list(images.shape)}"
            )
        wrong = set(labels[(labels < 0) | (labels >= self.num_classes)].tolist())
        if wrong:
            raise ValueError(
                f"{where} labels hold {sorted(wrong)[:5]}, which are not classes from 0 to "
                f"{self.num_classes - 1}; a set without labels cannot be used"
            )

    def encode(self, raw: Sequence[str | Path | Image.Image]) -> Tensor:
        """Images, or their files, as the network takes them, `[B, C, H, W]` float32."""
        size = (self.image_size, self.image_size)
        images = [pil_to_tensor(decode(image).convert(self.mode).resize(size)) for image in raw]
        return self.normalize(torch.stack(images))

    def on_after_batch_transfer(
        self, batch: tuple[Tensor, Tensor], dataloader_idx: int
    ) -> tuple[Tensor, Tensor]:
        """Augments (in training) and normalizes a batch on its device."""
        images, labels = batch
        if self.trainer is not None and self.trainer.training:
            images = shift(images, self.crop_padding)
            if self.flip:
                images = mirror(images)
        images = self.normalize(images)
        if self.trainer is not None:  # which casts to its precision before this
            images = self.trainer.precision_plugin.convert_input(images)
        return images, labels

    def normalize(self, images: Tensor) -> Tensor:
        """Turns uint8 images `[B, C, H, W]` into float32 of zero mean and unit variance."""
        normalized: Tensor = normalize(images.float() / 255, list(self.mean), list(self.std))
        return normalized


def shift(images: Tensor, padding: int) -> Tensor:
    """Moves each image by a random offset of at most `padding` pixels, filling with zeros.

    Args:
        images: `[B, C, H, W]`.
        padding: Largest offset in pixels.

    Returns:
        Images of the same shape and dtype.
    """
    if padding == 0:
        return images
    batch, _, height, width = images.shape
    padded = F.pad(images, [padding] * 4)
    offsets = torch.randint(0, 2 * padding + 1, (2, batch, 1), device=images.device)
    rows = offsets[0] + torch.arange(height, device=images.device)
    columns = offsets[1] + torch.arange(width, device=images.device)
    sample = torch.arange(batch, device=images.device)[:, None, None]
    return padded[sample, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def mirror(images: Tensor) -> Tensor:
    """Mirrors each image `[B, C, H, W]` left to right with probability 1/2."""
    chosen = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
    return torch.where(chosen, images.flip(-1), images)
