"""The contract of every data source, and disjoint random splits with fixed seeds."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from eenet.data.batches import BatchSampler
from eenet.seeding import epoch_seed

Split = Literal["train", "val", "cal", "test"]


class DataSource(ABC):
    """Base of all data: named splits, and one that `predict` reads.

    It knows nothing of Lightning: `eenet predict` and `eenet report` read and encode without it.
    `SplitDataModule` makes a LightningDataModule of a source.

    Train is for stage 1. Validation selects its checkpoint and is the only split the scheduler
    is fitted on. Calibration is optional and untouched by both. Test is used once. A subclass says
    what the splits are; a data set is indexed by a list of indices and hands out a whole batch.

    Args:
        val_size: Samples held out for validation; below 1, their fraction.
        cal_size: Samples (or fraction) held out for calibration.
        test_size: Samples (or fraction) held out for test, where the data have no test set.
        split_seed: Seed of the split; keep it fixed over the seeds of an experiment.
        batch_size: Samples per training batch (per device).
        eval_batch_size: Maximum batch size outside training.
        num_workers: Worker processes of each loader, wanted for images in files.
        predict_split: Which split `predict` reads; "train" comes without augmentation.
    """

    num_classes: int
    class_names: list[str] | None = None
    has_test_set = False  # else a `test_size` is refused
    read_augmented: Callable[..., Any] | None = None
    """Reads a training sample of an `IndexedDataset` in place of its own `read`."""
    trainer: Any = None
    """Lightning's, where one trains."""

    def __init__(
        self,
        val_size: int | float,
        cal_size: int | float = 0,
        test_size: int | float = 0,
        split_seed: int = 0,
        batch_size: int = 128,
        eval_batch_size: int = 256,
        num_workers: int = 0,
        predict_split: Split = "test",
    ) -> None:
        super().__init__()
        self.sizes = {"val": val_size, "cal": cal_size}
        if test_size and self.has_test_set:
            raise ValueError(f"test_size={test_size}: these data have a test set, which needs 0")
        if test_size:
            self.sizes["test"] = test_size
        self.split_seed = split_seed
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.num_workers = num_workers
        self.predict_split: Split = predict_split
        self._splits: dict[Split, Dataset[Any]] = {}
        self._trained_on: list[str] | None = None  # class names in the checkpoint that was loaded

    @abstractmethod
    def read(self) -> dict[Split, Dataset[Any]]:
        """All splits, read and divided."""

    @abstractmethod
    def encode(self, raw: Sequence[Any]) -> Any:
        """The network's input for raw samples (PIL images or texts), as in evaluation."""

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """What is left to do to a batch on its device: nothing, unless a subclass says so."""
        return batch

    def setup(self, stage: str | None = None) -> None:
        """Reads the data once.

        Raises:
            ValueError: If a split has no sample.
        """
        self._splits = self._splits or self.read()
        for split, data in self._splits.items():
            if not len(data) and (split != "cal" or self.has_calibration):  # type: ignore[arg-type]
                size = f"{split}_size={self.sizes[split]}: " if split in self.sizes else ""
                raise ValueError(f"{size}the {split} split holds no sample")
        self._check_classes()

    def state_dict(self) -> dict[str, Any]:
        """State for the checkpoint, in plain values: the names of the classes."""
        names = self.class_names
        return {"class_names": None if names is None else [str(name) for name in names]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up what a checkpoint keeps; its classes are those of this data module from now on.

        Raises:
            ValueError: If the data read before or afterwards have other classes.
        """
        self._trained_on = state_dict["class_names"]
        if self._splits:
            self._check_classes()
        elif self._trained_on:
            self.class_names = self._trained_on

    def _check_classes(self) -> None:
        names, trained = list(self.class_names or ()), self._trained_on
        if names and trained and names != trained:
            raise ValueError(
                f"the training data have the classes {names}, but the checkpoint was trained on "
                f"{trained}: restore those data, or train from scratch in another folder"
            )

    def dataset(self, split: Split, training: bool) -> Dataset[Any]:
        """A split, ready for augmentation when `training`."""
        data = self._splits[split]
        if training and self.read_augmented and isinstance(data, IndexedDataset):
            return replace(data, read=self.read_augmented)
        return data

    @property
    def has_calibration(self) -> bool:
        """Whether there is a calibration split."""
        return self.sizes["cal"] > 0

    def parts(self, total: int) -> dict[Split, Tensor]:
        """Indices of the train, val, cal and, with `test_size`, test split of `total` samples."""
        return split_indices(total, self.sizes, self.split_seed)  # type: ignore[return-value]

    def divide(self, data: Any) -> dict[Split, Dataset[Any]]:
        """The `parts` of a data set that can `select` samples."""
        return {split: data.select(index) for split, index in self.parts(len(data)).items()}

    def loader(self, split: Split, training: bool = False) -> DataLoader[Any]:
        """The loader of this process's part of a split, shuffled when `training`."""
        data: Any = self.dataset(split, training)
        size = self.batch_size if training else self.eval_batch_size
        lengths = getattr(data, "lengths", None)
        batches = BatchSampler(len(data), size, training, self.trainer, lengths)
        return DataLoader(
            data,
            batch_size=None,
            sampler=batches,
            # Of its own: a loader without one draws from torch's global numbers.
            generator=torch.Generator().manual_seed(epoch_seed(batches.epoch, stream=1) % 2**63),
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def train_dataloader(self) -> DataLoader[Any]:
        """Training batches."""
        return self.loader("train", training=True)

    def val_dataloader(self) -> DataLoader[Any]:
        """Validation batches, in order."""
        return self.loader("val")

    def test_dataloader(self) -> DataLoader[Any]:
        """Test batches, in order."""
        return self.loader("test")

    def predict_dataloader(self) -> DataLoader[Any]:
        """Batches of `predict_split`, in order."""
        return self.loader(self.predict_split)


def split_indices(total: int, sizes: Mapping[str, int | float], seed: int) -> dict[str, Tensor]:
    """Disjoint random index sets; what they leave is "train".

    Args:
        total: Number of samples to divide.
        sizes: Number of samples of each held-out split, or below 1 their fraction. Growing a later
            split never changes an earlier one.
        seed: Seed of the permutation.

    Returns:
        Sorted int64 indices per split, "train" included.

    Raises:
        ValueError: If a size is not a number or fraction, or nothing is left for training.
    """
    wrong = {name: x for name, x in sizes.items() if not (0 <= x < 1 or (x >= 1 and x % 1 == 0))}
    if wrong:
        raise ValueError(f"split sizes {wrong} must be whole numbers, or fractions below 1")
    counts = {name: round(x * total) if 0 < x < 1 else int(x) for name, x in sizes.items()}
    if sum(counts.values()) >= total:
        raise ValueError(
            f"splits of sizes {sizes} leave nothing to train on out of {total} samples"
        )
    counts["train"] = total - sum(counts.values())
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
    parts = torch.split(order, [*counts.values()])
    return {name: part.sort().values for name, part in zip(counts, parts, strict=True)}


@dataclass
class IndexedDataset(Dataset[Any]):
    """Samples that are read one by one and handed out in batches.

    Args:
        samples: The arguments of `read` for each sample, such as its file and label.
        read: Makes a sample, a tuple of tensors and numbers.
    """

    samples: Sequence[tuple[Any, ...]]
    read: Callable[..., Any]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, positions: list[int]) -> Any:
        chosen = [self.read(*self.samples[i]) for i in positions]
        return torch.utils.data.default_collate(chosen)

    def select(self, index: Tensor) -> "IndexedDataset":
        """Some of the samples."""
        return replace(self, samples=[self.samples[i] for i in index.tolist()])
