"""The split contract of every data module, and disjoint random splits with fixed seeds."""

from abc import ABC, abstractmethod
from typing import Any, Literal

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from eenet.seeding import EpochShuffle, epoch_seed

Split = Literal["train", "val", "cal", "test"]


class SplitDataModule(L.LightningDataModule, ABC):
    """Base of the data modules: named splits, and one that `predict` reads.

    Train is for stage 1. Validation selects its checkpoint and is the only split the scheduler
    is fitted on. Calibration is optional and untouched by both. Test is used once.

    Args:
        batch_size: Samples per training batch (per device).
        eval_batch_size: Samples per batch everywhere else.
        num_workers: Worker processes of each loader.
        predict_split: Which split `predict` reads; "train" comes without augmentation.
    """

    num_classes: int
    sizes: dict[str, int]
    """Samples held out: "val" and "cal"."""

    def __init__(
        self,
        batch_size: int = 128,
        eval_batch_size: int = 512,
        num_workers: int = 0,
        predict_split: Split = "test",
    ) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.num_workers = num_workers
        self.predict_split: Split = predict_split

    @abstractmethod
    def loader(self, split: Split, training: bool) -> DataLoader[Any]:
        """The loader of a split, shuffled and ready for augmentation when `training`."""

    @property
    def has_calibration(self) -> bool:
        """Whether there is a calibration split."""
        return self.sizes["cal"] > 0

    def shuffled(self, data: Any) -> EpochShuffle:
        """A sampler that shuffles by epoch, also in a run that is taken up again."""
        return EpochShuffle(len(data), self._epoch())

    def own_numbers(self) -> torch.Generator:
        """A generator for a loader, which else would draw from torch's global numbers."""
        return torch.Generator().manual_seed(epoch_seed(self._epoch(), stream=1) % 2**63)

    def _epoch(self) -> int:
        return self.trainer.current_epoch if self.trainer is not None else 0

    def train_dataloader(self) -> DataLoader[Any]:
        """Training batches."""
        return self.loader("train", training=True)

    def val_dataloader(self) -> DataLoader[Any]:
        """Validation batches."""
        return self.loader("val", training=False)

    def test_dataloader(self) -> DataLoader[Any]:
        """Test batches."""
        return self.loader("test", training=False)

    def predict_dataloader(self) -> DataLoader[Any]:
        """Batches of `predict_split`, in order."""
        return self.loader(self.predict_split, training=False)


def split_indices(total: int, sizes: dict[str, int], seed: int) -> dict[str, Tensor]:
    """Disjoint random index sets; what they leave is "train".

    Args:
        total: Number of samples to divide.
        sizes: Number of samples of each held-out split. Growing a later split never changes an
            earlier one.
        seed: Seed of the permutation.

    Returns:
        Sorted int64 indices per split, "train" included.

    Raises:
        ValueError: If a size is negative or nothing is left for training.
    """
    if min(sizes.values()) < 0 or sum(sizes.values()) >= total:
        raise ValueError(
            f"splits of sizes {sizes} leave nothing to train on out of {total} samples"
        )
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
    parts, start = {}, 0
    for name, size in sizes.items():
        parts[name] = order[start : start + size].sort().values
        start += size
    parts["train"] = order[start:].sort().values
    return parts


def identity(batch: Any) -> Any:
    """The collate function of data sets that hand out whole batches."""
    return batch
