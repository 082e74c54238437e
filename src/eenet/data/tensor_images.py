"""Image sets small enough for memory: uint8 tensors, normalised and augmented in whole batches."""

from abc import abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from eenet.data.splits import Split, SplitDataModule, identity, split_indices


class TensorImageDataModule(SplitDataModule):
    """Base of in-memory image sets; a subclass says how to `load` its training and test images.

    Batches are `(images [B, C, H, W] float32, labels [B] int64)` after the transfer to the device,
    where they are scaled to zero mean and unit variance per channel and, in training alone,
    shifted and mirrored at random, each sample on its own.

    Args:
        val_size: Samples held out for validation.
        cal_size: Samples held out for calibration.
        split_seed: Seed of the split; keep it fixed over the seeds of an experiment.
        crop_padding: Training images are shifted by up to this many pixels each way.
        flip: Whether training images are mirrored with probability 1/2.
        batch_size: Samples per training batch.
        eval_batch_size: Samples per batch everywhere else.
        num_workers: Worker processes; 0 is fastest for tensors in memory.
        predict_split: Which split `predict` reads.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __init__(
        self,
        val_size: int,
        cal_size: int = 0,
        split_seed: int = 0,
        crop_padding: int = 4,
        flip: bool = True,
        batch_size: int = 128,
        eval_batch_size: int = 512,
        num_workers: int = 0,
        predict_split: Split = "test",
    ) -> None:
        super().__init__(batch_size, eval_batch_size, num_workers, predict_split)
        self.sizes = {"val": val_size, "cal": cal_size}
        self.split_seed = split_seed
        self.crop_padding = crop_padding
        self.flip = flip
        self._splits: dict[str, tuple[Tensor, Tensor]] = {}

    @abstractmethod
    def load(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """The official sets: `((images, labels), (test images, test labels))`.

        Images are uint8 `[N, C, H, W]`, labels int64 `[N]`.
        """

    def setup(self, stage: str | None = None) -> None:
        """Loads and splits the images once."""
        if self._splits:
            return
        (images, labels), test = self.load()
        for name, index in split_indices(len(labels), self.sizes, self.split_seed).items():
            self._splits[name] = (images[index], labels[index])
        self._splits["test"] = test

    def loader(self, split: Split, training: bool) -> DataLoader[Any]:
        """The loader of a split."""
        data = _TensorDataset(*self._splits[split])
        return DataLoader(
            data,
            batch_size=self.batch_size if training else self.eval_batch_size,
            sampler=self.shuffled(data) if training else None,
            generator=self.own_numbers(),
            drop_last=training,
            num_workers=self.num_workers,
            collate_fn=identity,
        )

    def on_after_batch_transfer(
        self, batch: tuple[Tensor, Tensor], dataloader_idx: int
    ) -> tuple[Tensor, Tensor]:
        """Augments (in training) and normalises a batch on its device."""
        images, labels = batch
        if self.trainer is not None and self.trainer.training:
            images = shift(images, self.crop_padding)
            if self.flip:
                images = mirror(images)
        return self.normalise(images), labels

    def normalise(self, images: Tensor) -> Tensor:
        """Turns uint8 images `[B, C, H, W]` into float32 of zero mean and unit variance."""
        mean = torch.tensor(self.mean, device=images.device).view(-1, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(-1, 1, 1)
        return (images.float() / 255 - mean) / std


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


class _TensorDataset(Dataset[tuple[Tensor, Tensor]]):
    """Hands out whole batches by one indexing instead of sample by sample."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.images[index], self.labels[index]

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        return self.images[indices], self.labels[indices]
