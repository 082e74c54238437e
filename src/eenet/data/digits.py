"""scikit-learn's handwritten digits: real data that needs no download."""

from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor

from eenet.data.splits import split_indices
from eenet.data.tensor_images import TensorImageDataModule


class Digits(TensorImageDataModule):
    """The 1,797 handwritten digits (8 x 8, grey, 10 classes) inside scikit-learn.

    They come from the test set of the UCI "Optical Recognition of Handwritten Digits" (Alpaydin
    and Kaynak 1998). There is no official split: a fixed random one keeps `test_size` for test.

    Args:
        test_size: Samples of the test split.
        val_size: Samples held out for validation.
        crop_padding: Training images are shifted by up to this many pixels.
        batch_size: Samples per training batch.
        **settings: Those of `TensorImageDataModule`.
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
        super().__init__(
            val_size=val_size,
            crop_padding=crop_padding,
            flip=False,
            batch_size=batch_size,
            **settings,
        )
        self.test_size = test_size

    def load(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """The digits as uint8 images `[N, 1, 8, 8]`, divided into the rest and test."""
        data = load_digits()
        images = torch.from_numpy(data.images * (255 / 16)).round().to(torch.uint8)[:, None]
        labels = torch.from_numpy(data.target).long()
        parts = split_indices(len(labels), {"test": self.test_size}, seed=0)
        rest, test = parts["train"], parts["test"]
        return (images[rest], labels[rest]), (images[test], labels[test])
