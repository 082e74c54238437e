"""Image folders of any size, ImageNet above all: decoded and augmented in worker processes."""

from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision import datasets
from torchvision.transforms import v2

from eenet.data.splits import Split, SplitDataModule, split_indices

_MEAN, _STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


class ImageFolder(SplitDataModule):
    """Images in `ROOT/train/CLASS/` and `ROOT/val/CLASS/`, as ImageNet is usually laid out.

    ImageNet's test labels are not public; papers report on its validation set, so `val/` is
    "test" here and the validation split is held out of `train/`. Batches are
    `(images [B, 3, S, S] float32, labels [B] int64)`, normalised by ImageNet's mean and standard
    deviation. Training images are a random crop, mirrored at random (He et al. 2016, section 3.4,
    with the crops of torchvision's recipes); all others the central crop.

    Args:
        root: The folder.
        num_classes: Number of classes; ImageNet has 1,000.
        image_size: Height and width S that the network gets.
        resize: Shorter side before the central crop.
        val_size: Samples held out for validation.
        cal_size: Samples held out for calibration.
        split_seed: Seed of the split; keep it fixed over the seeds of an experiment.
        batch_size: Samples per training batch.
        eval_batch_size: Samples per batch everywhere else.
        num_workers: Worker processes, which decode the images.
        predict_split: Which split `predict` reads.

    Raises:
        FileNotFoundError: At set-up, if a folder is missing.
        ValueError: At set-up, if the classes of the folders differ or are not `num_classes`.
    """

    def __init__(
        self,
        root: str,
        num_classes: int = 1000,
        image_size: int = 224,
        resize: int = 256,
        val_size: int = 50000,
        cal_size: int = 0,
        split_seed: int = 0,
        batch_size: int = 64,
        eval_batch_size: int = 256,
        num_workers: int = 8,
        predict_split: Split = "test",
    ) -> None:
        super().__init__(batch_size, eval_batch_size, num_workers, predict_split)
        self.root = root
        self.num_classes = num_classes
        self.sizes = {"val": val_size, "cal": cal_size}
        self.split_seed = split_seed
        last = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(_MEAN, _STD)]
        self._augmented = v2.Compose(
            [v2.RandomResizedCrop(image_size), v2.RandomHorizontalFlip(), *last]
        )
        self._plain = v2.Compose([v2.Resize(resize), v2.CenterCrop(image_size), *last])
        self._splits: dict[tuple[str, bool], Dataset[Any]] = {}

    def setup(self, stage: str | None = None) -> None:
        """Lists and splits the files once."""
        if self._splits:
            return
        rest, test = self._folder("train", self._plain), self._folder("val", self._plain)
        if rest.classes != test.classes or len(rest.classes) != self.num_classes:
            raise ValueError(
                f"num_classes={self.num_classes}: {self.root}/train has {len(rest.classes)} "
                f"classes and {self.root}/val {len(test.classes)}; they must be the same and as "
                "many as num_classes"
            )
        parts = split_indices(len(rest), self.sizes, self.split_seed)
        self._splits = {(name, False): Subset(rest, i.tolist()) for name, i in parts.items()}
        augmented = self._folder("train", self._augmented)
        self._splits["train", True] = Subset(augmented, parts["train"].tolist())
        self._splits["test", False] = test

    def loader(self, split: Split, training: bool) -> DataLoader[Any]:
        """The loader of a split."""
        data = self._splits[split, training]
        return DataLoader(
            data,
            batch_size=self.batch_size if training else self.eval_batch_size,
            sampler=self.shuffled(data) if training else None,
            generator=self.own_numbers(),
            drop_last=training,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def _folder(self, name: str, transform: v2.Transform) -> Any:
        path = Path(self.root) / name
        if not path.is_dir():
            raise FileNotFoundError(
                f"root={self.root!r} must hold the folders train and val, each with one folder "
                f"per class; {path} does not exist"
            )
        return datasets.ImageFolder(str(path), transform)
